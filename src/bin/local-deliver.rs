//! `local-deliver`: see man local-deliver(8).

#![cfg_attr(all(target_env = "gnu", not(test)), no_main)]

hikyaku::entry!(hikyaku::local_deliver_main);
