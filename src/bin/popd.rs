//! `popd`: see man popd(8).

#![cfg_attr(target_env = "gnu", no_main)]

hikyaku::entry!(hikyaku::popd_main);
