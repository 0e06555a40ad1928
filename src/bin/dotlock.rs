//! `dotlock`: see man dotlock(8).

#![cfg_attr(target_env = "gnu", no_main)]

hikyaku::entry!(hikyaku::dotlock_main);
