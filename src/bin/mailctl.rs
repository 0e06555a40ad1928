//! `mailctl`: see man mailctl(8).

#![cfg_attr(all(target_env = "gnu", not(test)), no_main)]

hikyaku::entry!(hikyaku::mailctl_main);
