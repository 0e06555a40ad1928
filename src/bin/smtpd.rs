//! `smtpd`: see man smtpd(8).

#![cfg_attr(target_env = "gnu", no_main)]

hikyaku::entry!(hikyaku::smtpd_main);
