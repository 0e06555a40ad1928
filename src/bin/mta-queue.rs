//! `mta-queue`: see man mta-queue(8).

#![cfg_attr(target_env = "gnu", no_main)]

hikyaku::entry!(hikyaku::mta_queue_main);
