//! `imapd`: see man imapd(8).

#![cfg_attr(all(target_env = "gnu", not(test)), no_main)]

hikyaku::entry!(hikyaku::imapd_main);
