//! `local-deliver`: see man local-deliver(8).

#![cfg_attr(target_env = "gnu", no_main)]

hikyaku::entry!(hikyaku::local_deliver_main);
