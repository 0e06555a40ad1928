//! `mta-queue`: see man mta-queue(8).

#![cfg_attr(all(target_env = "gnu", not(test)), no_main)]

hikyaku::entry!(hikyaku::mta_queue_main);
