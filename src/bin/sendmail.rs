//! `sendmail`: see man sendmail(8).

#![cfg_attr(target_env = "gnu", no_main)]

hikyaku::entry!(hikyaku::sendmail_main);
