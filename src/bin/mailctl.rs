//! `mailctl`: see man mailctl(8).

#![cfg_attr(target_env = "gnu", no_main)]

hikyaku::entry!(hikyaku::mailctl_main);
