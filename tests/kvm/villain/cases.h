/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every case of the villain, for both sides: the payload has a function case_NAME() for each, the
 * driver (tests/kvm/test_villain.c) holds the machine to what is written here.
 *
 *	CASE(name, target, cpus, fate, words)
 *
 * A target of EACH_QUEUE or EACH_DEVICE makes a case for every row of VILLAIN_QUEUES or
 * VILLAIN_DEVICES. A new device: its rows here, and one in the driver's world_init().
 */
#ifndef TESTS_KVM_VILLAIN_CASES_H
#define TESTS_KVM_VILLAIN_CASES_H

/* For both sides, too. */
enum {
	VILLAIN_SECTORS = 64,	/* the first of each disk: byte i of sector s is 7 * s + i */
	VILLAIN_MAILBOX = 4000, /* sector of the first disk, filled when "villain wait" is read */
	VILLAIN_SCRATCH = 4096, /* sectors from here on may be written */
	MEM_BLOCKS = 64,	/* of the memory device's region, and so many may be had */
	MEM_GIVEN = 16,
	VILLAIN_CONSOLE = 4096, /* what the console's pipe holds where it is to be flooded */
	VILLAIN_PORT = 7,	/* of the host: somebody says VILLAIN_GREETING, never listens */
};
#define VILLAIN_GREETING "villain"

enum villain_target { MACHINE, EACH_DEVICE, EACH_QUEUE, BLK, VSOCK, RNG, BALLOON, MEMORY, NET };

enum villain_fate {
	WORKS,	  /* no device breaks, all work on without or with a reset */
	BREAKS,	  /* the target says DEVICE_NEEDS_RESET, the log says @words; works after a reset */
	SURVIVES, /* broken or not depends on who is faster; works after a reset */
	ENDS,	  /* the machine ends as crashed, for a reason with @words in it */
	STAYS,	  /* nothing happens any more; it uses no processor, and can be ended */
	SPINS,	  /* the guest runs for ever; it can be ended */
	ANYHOW,	  /* what becomes of it differs between kinds of KVM; it can be ended */
};

/* name, virtio device id, which of that id, queue */
#define VILLAIN_QUEUES(QUEUE)                                                                      \
	QUEUE(blk, 2, 0, 0)                                                                        \
	QUEUE(readonly, 2, 1, 0)                                                                   \
	QUEUE(vsock_rx, 19, 0, 0)                                                                  \
	QUEUE(vsock_tx, 19, 0, 1)                                                                  \
	QUEUE(rng, 4, 0, 0)                                                                        \
	QUEUE(inflate, 5, 0, 0)                                                                    \
	QUEUE(deflate, 5, 0, 1)                                                                    \
	QUEUE(reporting, 5, 0, 2)                                                                  \
	QUEUE(mem, 24, 0, 0)                                                                       \
	QUEUE(net_rx, 1, 0, 0)                                                                     \
	QUEUE(net_tx, 1, 0, 1)

#define VILLAIN_DEVICES(DEVICE)                                                                    \
	DEVICE(blk, 2, 0, 0)                                                                       \
	DEVICE(readonly, 2, 1, 0)                                                                  \
	DEVICE(vsock, 19, 0, 1)                                                                    \
	DEVICE(rng, 4, 0, 0)                                                                       \
	DEVICE(balloon, 5, 0, 0)                                                                   \
	DEVICE(mem, 24, 0, 0)                                                                      \
	DEVICE(net, 1, 0, 1)

#define OUTSIDE	 "buffer outside guest memory"
#define TABLE	 "indirect table outside guest memory"
#define LENGTH	 "indirect table of a bad length"
#define LOOP	 "descriptor loop"
#define INDEX	 "descriptor index out of range"
#define MANY	 "chain of too many buffers"
#define JUMPED	 "available index jumped"
#define ENTRY	 "available entry out of range"
#define HEADLESS "request without a header or a status byte"
#define PLACE	 "request without a place for random numbers"
#define PAGE	 "page outside guest memory"
#define ODD	 "page numbers of an odd length"
#define BARE	 "frame without a header, or with something to write"
#define FULL	 "receive buffer without room for a header"

#define VILLAIN_CASES(CASE)                                                                        \
	/* descriptors */                                                                          \
	CASE(addr_above_low_memory, EACH_QUEUE, 1, BREAKS, OUTSIDE)                                \
	CASE(addr_across_end_of_memory, EACH_QUEUE, 1, BREAKS, OUTSIDE)                            \
	CASE(addr_below_hole_across, EACH_QUEUE, 1, BREAKS, OUTSIDE)                               \
	CASE(addr_in_hole, EACH_QUEUE, 1, BREAKS, OUTSIDE)                                         \
	CASE(addr_across_4g, EACH_QUEUE, 1, BREAKS, OUTSIDE)                                       \
	CASE(addr_above_all, EACH_QUEUE, 1, BREAKS, OUTSIDE)                                       \
	CASE(addr_of_device_window, EACH_QUEUE, 1, BREAKS, OUTSIDE)                                \
	CASE(addr_wraps, EACH_QUEUE, 1, BREAKS, OUTSIDE)                                           \
	CASE(addr_ends_at_2_64, EACH_QUEUE, 1, BREAKS, OUTSIDE)                                    \
	CASE(len_all_ones, EACH_QUEUE, 1, BREAKS, OUTSIDE)                                         \
	CASE(len_sum_overflows, EACH_QUEUE, 1, BREAKS, "chain longer than 4 GiB")                  \
	CASE(loop_to_self, EACH_QUEUE, 1, BREAKS, LOOP)                                            \
	CASE(loop_of_two, EACH_QUEUE, 1, BREAKS, LOOP)                                             \
	CASE(loop_of_empty, EACH_QUEUE, 1, BREAKS, LOOP)                                           \
	CASE(next_out_of_range, EACH_QUEUE, 1, BREAKS, INDEX)                                      \
	CASE(next_all_ones, EACH_QUEUE, 1, BREAKS, INDEX)                                          \
	CASE(readable_after_writable, EACH_QUEUE, 1, BREAKS, "readable buffer after a writable")   \
	CASE(indirect_nested, EACH_QUEUE, 1, BREAKS, "inside an indirect table")                   \
	CASE(indirect_nested_in_self, EACH_QUEUE, 1, BREAKS, "inside an indirect table")           \
	CASE(indirect_with_next, EACH_QUEUE, 1, BREAKS, "with a successor")                        \
	CASE(indirect_length_odd, EACH_QUEUE, 1, BREAKS, LENGTH)                                   \
	CASE(indirect_length_zero, EACH_QUEUE, 1, BREAKS, LENGTH)                                  \
	CASE(indirect_length_huge, EACH_QUEUE, 1, BREAKS, TABLE)                                   \
	CASE(indirect_outside, EACH_QUEUE, 1, BREAKS, TABLE)                                       \
	CASE(indirect_wraps, EACH_QUEUE, 1, BREAKS, TABLE)                                         \
	CASE(indirect_loop, EACH_QUEUE, 1, BREAKS, LOOP)                                           \
	CASE(indirect_next_out_of_range, EACH_QUEUE, 1, BREAKS, INDEX)                             \
	CASE(indirect_longer_than_any, EACH_QUEUE, 1, BREAKS, MANY)                                \
	CASE(indirect_not_negotiated, EACH_QUEUE, 1, BREAKS, "without the feature")                \
	/* rings */                                                                                \
	CASE(avail_jumps_forward, EACH_QUEUE, 1, BREAKS, JUMPED)                                   \
	CASE(avail_jumps_back, EACH_QUEUE, 1, BREAKS, JUMPED)                                      \
	CASE(avail_entry_out_of_range, EACH_QUEUE, 1, BREAKS, ENTRY)                               \
	CASE(avail_entry_all_ones, EACH_QUEUE, 1, BREAKS, ENTRY)                                   \
	CASE(areas_refused, EACH_QUEUE, 1, WORKS, "")                                              \
	CASE(areas_on_top_of_each_other, EACH_QUEUE, 1, SURVIVES, "")                              \
	CASE(areas_at_end_of_memory, EACH_QUEUE, 1, SURVIVES, "")                                  \
	CASE(buffers_on_rings, EACH_QUEUE, 1, SURVIVES, "")                                        \
	CASE(same_chain_many_times, EACH_QUEUE, 1, SURVIVES, "")                                   \
	CASE(random_rings, EACH_QUEUE, 1, SURVIVES, "")                                            \
	CASE(toctou_descriptors, EACH_QUEUE, 2, SURVIVES, "")                                      \
	CASE(toctou_avail, EACH_QUEUE, 2, SURVIVES, "")                                            \
	CASE(toctou_indirect, EACH_QUEUE, 2, SURVIVES, "")                                         \
	CASE(ready_toggles, EACH_QUEUE, 1, SURVIVES, "")                                           \
	/* registers */                                                                            \
	CASE(queue_select_out_of_range, EACH_DEVICE, 1, WORKS, "")                                 \
	CASE(notify_out_of_range, EACH_DEVICE, 1, WORKS, "")                                       \
	CASE(notify_before_anything, EACH_DEVICE, 1, WORKS, "")                                    \
	CASE(rewritten_after_driver_ok, EACH_DEVICE, 1, WORKS, "")                                 \
	CASE(config_widths_and_offsets, EACH_DEVICE, 1, WORKS, "")                                 \
	CASE(register_widths, EACH_DEVICE, 1, WORKS, "")                                           \
	CASE(read_only_registers, EACH_DEVICE, 1, WORKS, "")                                       \
	CASE(features_not_offered, EACH_DEVICE, 1, WORKS, "")                                      \
	CASE(features_ok_skipped, EACH_DEVICE, 1, WORKS, "")                                       \
	CASE(features_after_ok, EACH_DEVICE, 1, WORKS, "")                                         \
	CASE(version_1_refused, EACH_DEVICE, 1, WORKS, "")                                         \
	CASE(driver_ok_without_queues, EACH_DEVICE, 1, WORKS, "")                                  \
	CASE(status_bits_cleared, EACH_DEVICE, 1, WORKS, "")                                       \
	CASE(reset_storm, EACH_DEVICE, 1, WORKS, "")                                               \
	CASE(break_storm, EACH_DEVICE, 1, BREAKS, ENTRY)                                           \
	CASE(notify_storm, EACH_DEVICE, 4, WORKS, "")                                              \
	CASE(acknowledge_storm, EACH_DEVICE, 4, WORKS, "")                                         \
	CASE(reset_against_notify, EACH_DEVICE, 4, SURVIVES, "")                                   \
	CASE(random_registers, EACH_DEVICE, 1, SURVIVES, "")                                       \
	CASE(random_registers_by_all, EACH_DEVICE, 4, SURVIVES, "")                                \
	/* disks */                                                                                \
	CASE(blk_types, BLK, 1, WORKS, "")                                                         \
	CASE(blk_beyond_the_end, BLK, 1, WORKS, "")                                                \
	CASE(blk_odd_lengths, BLK, 1, WORKS, "")                                                   \
	CASE(blk_wrong_directions, BLK, 1, WORKS, "")                                              \
	CASE(blk_write_to_read_only, BLK, 1, WORKS, "")                                            \
	CASE(blk_ranges, BLK, 1, WORKS, "")                                                        \
	CASE(blk_shapes, BLK, 1, WORKS, "")                                                        \
	CASE(blk_chain_of_the_whole_queue, BLK, 1, WORKS, "")                                      \
	CASE(blk_last_byte_of_memory, BLK, 1, WORKS, "")                                           \
	CASE(blk_short_header, BLK, 1, BREAKS, HEADLESS)                                           \
	CASE(blk_no_status, BLK, 1, BREAKS, HEADLESS)                                              \
	CASE(blk_header_writable, BLK, 1, BREAKS, HEADLESS)                                        \
	CASE(blk_status_readable, BLK, 1, BREAKS, HEADLESS)                                        \
	CASE(blk_empty_chain, BLK, 1, BREAKS, HEADLESS)                                            \
	CASE(blk_too_large, BLK, 1, WORKS, "")                                                     \
	CASE(blk_reset_in_flight, BLK, 1, WORKS, "")                                               \
	CASE(blk_queue_stopped_in_flight, BLK, 1, WORKS, "")                                       \
	CASE(blk_toctou_header, BLK, 2, WORKS, "")                                                 \
	/* sockets */                                                                              \
	CASE(vsock_short_packet, VSOCK, 1, BREAKS, "packet without a header")                      \
	CASE(vsock_writable_packet, VSOCK, 1, BREAKS, "packet without a header")                   \
	CASE(vsock_small_receive_buffer, VSOCK, 1, BREAKS, "without room for data")                \
	CASE(vsock_readable_receive_buffer, VSOCK, 1, BREAKS, "without room for data")             \
	CASE(vsock_operations, VSOCK, 1, WORKS, "")                                                \
	CASE(vsock_addresses, VSOCK, 1, WORKS, "")                                                 \
	CASE(vsock_lengths, VSOCK, 1, WORKS, "")                                                   \
	CASE(vsock_credit_lies, VSOCK, 1, WORKS, "")                                               \
	CASE(vsock_ignores_credit, VSOCK, 1, WORKS, "")                                            \
	CASE(vsock_connection_flood, VSOCK, 1, WORKS, "")                                          \
	CASE(vsock_no_receive_buffers, VSOCK, 1, WORKS, "")                                        \
	CASE(vsock_data_after_shutdown, VSOCK, 1, WORKS, "")                                       \
	CASE(vsock_event_queue, VSOCK, 1, WORKS, "")                                               \
	CASE(vsock_reset_with_connections, VSOCK, 1, WORKS, "")                                    \
	CASE(vsock_random_packets, VSOCK, 1, SURVIVES, "")                                         \
	CASE(vsock_toctou_header, VSOCK, 2, WORKS, "")                                             \
	/* random numbers */                                                                       \
	CASE(rng_readable, RNG, 1, BREAKS, PLACE)                                                  \
	CASE(rng_readable_in_front, RNG, 1, BREAKS, PLACE)                                         \
	CASE(rng_nothing, RNG, 1, BREAKS, PLACE)                                                   \
	CASE(rng_nothing_often, RNG, 1, BREAKS, PLACE)                                             \
	CASE(rng_over_4g_indirect, RNG, 1, BREAKS, "chain longer than 4 GiB")                      \
	CASE(rng_shapes, RNG, 1, WORKS, "")                                                        \
	CASE(rng_greedy, RNG, 1, WORKS, "")                                                        \
	CASE(rng_storm, RNG, 1, WORKS, "")                                                         \
	CASE(rng_reset_in_flight, RNG, 4, WORKS, "")                                               \
	/* the balloon */                                                                          \
	CASE(balloon_outside, BALLOON, 1, BREAKS, PAGE)                                            \
	CASE(balloon_outside_after_good, BALLOON, 1, BREAKS, PAGE)                                 \
	CASE(balloon_across_the_end, BALLOON, 1, BREAKS, PAGE)                                     \
	CASE(balloon_odd_lengths, BALLOON, 1, BREAKS, ODD)                                         \
	CASE(balloon_too_many, BALLOON, 1, BREAKS, "more pages than a request may name")           \
	CASE(balloon_shapes, BALLOON, 1, WORKS, "")                                                \
	CASE(balloon_many, BALLOON, 1, WORKS, "")                                                  \
	CASE(balloon_config, BALLOON, 1, WORKS, "")                                                \
	CASE(balloon_report_shapes, BALLOON, 1, WORKS, "")                                         \
	CASE(balloon_rings, BALLOON, 1, SURVIVES, "")                                              \
	CASE(balloon_report_rings, BALLOON, 1, SURVIVES, "")                                       \
	CASE(balloon_storm, BALLOON, 4, WORKS, "")                                                 \
	CASE(balloon_reset_in_flight, BALLOON, 4, WORKS, "")                                       \
	CASE(balloon_toctou, BALLOON, 2, SURVIVES, "")                                             \
	CASE(balloon_code, BALLOON, 1, ANYHOW, "")                                                 \
	CASE(balloon_report_everything, BALLOON, 1, ANYHOW, "")                                    \
	/* memory */                                                                               \
	CASE(mem_short, MEMORY, 1, BREAKS, "request that is too short")                            \
	CASE(mem_no_answer, MEMORY, 1, BREAKS, "without a place for the answer")                   \
	CASE(mem_writable, MEMORY, 1, BREAKS, "request that is too short")                         \
	CASE(mem_places, MEMORY, 1, WORKS, "")                                                     \
	CASE(mem_states, MEMORY, 1, WORKS, "")                                                     \
	CASE(mem_not_given, MEMORY, 1, WORKS, "")                                                  \
	CASE(mem_rings, MEMORY, 1, SURVIVES, "")                                                   \
	CASE(mem_toctou, MEMORY, 2, WORKS, "")                                                     \
	/* the network card */                                                                     \
	CASE(net_short_frame, NET, 1, BREAKS, BARE)                                                \
	CASE(net_writable_frame, NET, 1, BREAKS, BARE)                                             \
	CASE(net_too_long, NET, 1, BREAKS, "frame longer than any can be")                         \
	CASE(net_small_receive_buffer, NET, 1, BREAKS, FULL)                                       \
	CASE(net_readable_receive_buffer, NET, 1, BREAKS, FULL)                                    \
	CASE(net_tiny_receive_buffer, NET, 1, WORKS, "")                                           \
	CASE(net_headers, NET, 1, WORKS, "")                                                       \
	CASE(net_lengths, NET, 1, WORKS, "")                                                       \
	CASE(net_fragment_bomb, NET, 1, WORKS, "")                                                 \
	CASE(net_connection_flood, NET, 1, WORKS, "")                                              \
	CASE(net_datagram_flood, NET, 1, WORKS, "")                                                \
	CASE(net_names_in_circles, NET, 1, WORKS, "")                                              \
	CASE(net_question_flood, NET, 1, WORKS, "")                                                \
	CASE(net_above_its_limits, NET, 1, WORKS, "")                                              \
	CASE(net_neighbour_flood, NET, 1, WORKS, "")                                               \
	CASE(net_random_frames, NET, 1, WORKS, "")                                                 \
	CASE(net_toctou_frame, NET, 2, WORKS, "")                                                  \
	CASE(net_reset_in_flight, NET, 1, WORKS, "")                                               \
	/* the machine */                                                                          \
	CASE(ports_unassigned, MACHINE, 1, WORKS, "")                                              \
	CASE(memory_unassigned, MACHINE, 1, WORKS, "")                                             \
	CASE(string_output, MACHINE, 1, WORKS, "")                                                 \
	CASE(string_input, MACHINE, 1, WORKS, "")                                                  \
	CASE(console_flood, MACHINE, 1, WORKS, "")                                                 \
	CASE(serial_port_registers, MACHINE, 1, WORKS, "")                                         \
	CASE(interrupt_controllers, MACHINE, 1, WORKS, "")                                         \
	CASE(keyboard_controller, MACHINE, 1, WORKS, "")                                           \
	CASE(cpu_never_started, MACHINE, 4, WORKS, "")                                             \
	CASE(panic_flag, MACHINE, 1, WORKS, "")                                                    \
	CASE(interrupt_routes, MACHINE, 2, WORKS, "")                                              \
	CASE(execute_nothing, MACHINE, 1, ENDS, "KVM")                                             \
	CASE(triple_fault, MACHINE, 1, ENDS, "triple fault")                                       \
	CASE(triple_fault_second_cpu, MACHINE, 2, ENDS, "vCPU 1: triple fault")                    \
	CASE(stack_in_device_window, MACHINE, 1, ANYHOW, "")                                       \
	CASE(fault_with_stack_in_window, MACHINE, 1, ANYHOW, "")                                   \
	CASE(tables_in_device_window, MACHINE, 1, ANYHOW, "")                                      \
	CASE(tables_outside_memory, MACHINE, 1, ANYHOW, "")                                        \
	CASE(init_to_self, MACHINE, 1, ANYHOW, "")                                                 \
	CASE(init_storm, MACHINE, 4, ANYHOW, "")                                                   \
	CASE(halt_without_interrupts, MACHINE, 1, STAYS, "")                                       \
	CASE(halt_with_requests_in_flight, MACHINE, 1, STAYS, "")                                  \
	CASE(broken_and_halted, MACHINE, 1, STAYS, "")                                             \
	CASE(endless_loop, MACHINE, 1, SPINS, "")                                                  \
	CASE(endless_loop_of_all, MACHINE, 4, SPINS, "")                                           \
	CASE(endless_register_reads, MACHINE, 1, SPINS, "")                                        \
	CASE(endless_notifications, MACHINE, 1, SPINS, "")

#endif
