//! `popd`: see man popd(8).

#![cfg_attr(all(target_env = "gnu", not(test)), no_main)]

hikyaku::entry!(hikyaku::popd_main);
