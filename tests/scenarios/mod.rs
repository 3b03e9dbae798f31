//! Scenarios for the mini broker and real Apache RocketMQ, written once against [`Cluster`].
//!
//! Each binary (`tests/mini.rs`, `tests/apache/main.rs`) provides its own `Cluster` and turns every line of
//! [`for_each_scenario`] into a test. A scenario is independent of the server: it uses addresses, names its topics and
//! groups by [`unique`], waits by [`eventually`] and fails by panicking. Names begin with the row of the conformance
//! list.

#![allow(clippy::print_stdout, reason = "a run that went well tells how much it had to stand")]

pub(crate) mod clocks;
mod cluster;
pub(crate) mod connect;
pub(crate) mod connections;
pub(crate) mod consume;
pub(crate) mod consumption;
pub(crate) mod crash;
pub(crate) mod deliveries;
pub(crate) mod doctor;
pub(crate) mod filter;
pub(crate) mod foreign;
pub(crate) mod inbox;
pub(crate) mod kills;
pub(crate) mod life;
mod logs;
pub(crate) mod lookups;
pub(crate) mod members;
pub(crate) mod offset;
pub(crate) mod outage;
mod proxy;
pub(crate) mod quiet;
pub(crate) mod raw;
pub(crate) mod retry;
pub(crate) mod routes;
mod scene;
pub(crate) mod send;
pub(crate) mod send_async;
pub(crate) mod server;
pub(crate) mod shutdown;
pub(crate) mod smoke;
mod storm;
pub(crate) mod transcript;

pub(crate) use cluster::{Broker, Cluster, Profile, Server, eventually, unique};

/// Calls `$test! { module::scenario on PROFILE }` for every scenario.
macro_rules! for_each_scenario {
    ($test:ident) => {
        $test! { smoke::send_13_ten_messages_of_each_way_are_sent_and_consumed on STANDARD }
        $test! { life::life_01_ten_messages_to_each_of_24_queues_are_consumed on STANDARD }
        $test! { life::life_02_a_client_has_one_producer_of_a_group on STANDARD }
        $test! { life::life_03_a_wrong_producer_is_told_at_start_or_at_its_first_send on STANDARD }
        $test! { life::life_04_what_a_consumer_lacks_is_named_and_no_thread_is_left on STANDARD }
        $test! { life::life_06_wrong_consumer_groups_are_refused_and_a_long_one_works on STANDARD }
        $test! { life::life_08_shutdown_waits_for_the_running_listener on STANDARD }
        $test! { life::life_17_a_topic_created_while_a_broker_is_down_has_its_queues_later on ISOLATED }
        $test! { send_async::send_01_async_messages_arrive_in_the_queue_they_are_sent_to on STANDARD }
        $test! { send_async::send_02_async_messages_arrive_in_the_queue_that_is_selected on STANDARD }
        $test! { send_async::send_03_async_messages_have_one_outcome_each on STANDARD }
        $test! { send_async::send_04_a_selector_that_fails_costs_its_own_call_only on STANDARD }
        $test! { send_async::send_05_a_queue_that_does_not_exist_is_told_to_the_callback on STANDARD }
        $test! { send_async::send_06_a_negative_queue_lets_the_broker_choose on STANDARD }
        $test! { send_async::send_23_wrong_async_calls_have_one_completion_each on STANDARD }
        $test! { send_async::async_messages_to_one_queue_keep_their_order_across_refusals_and_lost_connections on STANDARD }
        $test! { send::send_07_oneway_messages_arrive_in_every_way_of_sending on STANDARD }
        $test! { send::send_08_wrong_oneway_calls_are_told_to_their_caller on STANDARD }
        $test! { send::send_09_wrong_messages_are_refused_and_large_ones_arrive on STANDARD }
        $test! { send::send_10_a_property_of_ten_thousand_chinese_characters_arrives on STANDARD }
        $test! { send::send_11_properties_that_are_too_long_are_refused_here_and_there on STANDARD }
        $test! { send::send_12_properties_arrive_as_they_were_sent on STANDARD }
        $test! { send::send_14_bodies_of_every_kind_arrive_unharmed on STANDARD }
        $test! { send::send_19_topics_that_cannot_be_are_refused on STANDARD }
        $test! { send::send_20_a_topic_without_a_route_is_told on STRICT }
        $test! { send::send_22_a_receipt_tells_where_the_message_is on STANDARD }
        $test! { send::send_29_five_threads_share_a_producer_and_keys_keep_their_order on STANDARD }
        $test! { send::compressed_bodies_and_both_header_encodings_arrive on STANDARD }
        $test! { send::the_first_message_creates_its_topic on STANDARD }
        $test! { connect::dead_and_silent_name_servers_cost_a_send_only_a_part_of_its_time on STANDARD }
        $test! { connect::mapped_addresses_are_the_ones_dialled on STANDARD }
        $test! { connect::two_clients_for_two_clusters_never_meet on STANDARD }
        $test! { consume::cc_01_two_members_share_400_messages_evenly on STANDARD }
        $test! { consume::cc_01_four_members_share_600_messages_evenly on STANDARD }
        $test! { consume::cc_02_the_queues_of_a_member_that_leaves_go_to_the_others on STANDARD }
        $test! { consume::cc_03_nothing_is_lost_while_members_join on STANDARD }
        $test! { consume::cc_04_nothing_is_lost_while_members_crash on STANDARD }
        $test! { consume::cc_05_nothing_is_lost_while_members_join_and_crash on STANDARD }
        $test! { consume::cc_06_shares_are_even_after_every_change on STANDARD }
        $test! { consume::cc_07_three_members_together_get_everything on STANDARD }
        $test! { consume::cc_08_one_consumer_takes_what_it_wants_of_two_topics on STANDARD }
        $test! { consume::cc_09_two_members_share_two_topics on STANDARD }
        $test! { consume::cc_17_a_message_for_later_comes_again_with_a_higher_count on STANDARD }
        $test! { filter::filt_01_each_expression_selects_exactly_its_messages on STANDARD }
        $test! { filter::filt_02_each_group_gets_exactly_its_own_tags on STANDARD }
        $test! { filter::filt_03_members_of_one_group_share_one_tag_across_a_restart on STANDARD }
        $test! { filter::filt_04_several_tags_and_one_that_nobody_has on STANDARD }
        $test! { filter::filt_05_tags_are_compared_by_their_text on STANDARD }
        $test! { offset::off_01_from_the_first_offset_a_new_group_gets_the_old_messages on STANDARD }
        $test! { offset::off_02_from_the_last_offset_a_young_queue_of_a_4_9_broker_comes_whole on STANDARD }
        $test! { offset::off_03_from_a_time_a_new_group_gets_what_was_stored_since on STANDARD }
        $test! { offset::a_known_group_goes_on_where_it_ended on STANDARD }
        $test! { offset::an_offset_beyond_the_end_of_a_topic_made_anew_skips_nothing on STANDARD }
        $test! { retry::retry_01_the_first_two_retries_wait_for_their_levels on STANDARD }
        $test! { retry::retry_02_with_no_retries_a_failed_message_is_a_dead_letter on STANDARD }
        $test! { retry::the_largest_properties_survive_retries_and_the_dead_letter_queue on STANDARD }
        $test! { retry::retry_03_a_panic_and_an_error_lead_to_a_retry on STANDARD }
        $test! { retry::retry_04_a_message_succeeds_at_its_third_delivery on STANDARD }
        $test! { retry::retry_05_a_message_that_waits_too_long_goes_back_and_a_running_one_does_not on STANDARD }
        $test! { retry::retry_10_the_seventeenth_failure_makes_one_dead_letter on STANDARD }
        $test! { retry::a_listener_chooses_the_delay_or_the_dead_letter_queue on STANDARD }
        $test! { retry::the_unacknowledged_rest_of_a_batch_comes_again on STANDARD }
        $test! { retry::of_what_came_together_only_the_messages_that_fail_come_again on STANDARD }
        $test! { retry::a_corrupt_body_is_a_dead_letter_and_its_neighbours_are_consumed on STANDARD }
        $test! { foreign::a_batch_with_foreign_text_is_shown_with_replacement_characters on STANDARD }
        $test! { foreign::a_body_in_raw_deflate_is_restored on STANDARD }
        $test! { foreign::a_received_message_is_sent_on_as_a_new_one on STANDARD }
        $test! { foreign::a_message_beyond_the_frame_limit_holds_up_its_own_queue_alone on STANDARD }
        $test! { connections::connections_cut_in_mid_frame_cost_no_acknowledged_message on STANDARD }
        $test! { connections::connections_reset_every_moment_cost_no_acknowledged_message_and_no_membership on STANDARD }
        $test! { connections::connections_that_carry_nothing_any_more_are_replaced on STANDARD }
        $test! { connections::an_idle_client_finds_out_that_its_connections_are_dead on STANDARD }
        $test! { connections::slow_replies_cost_no_connection on STANDARD }
        $test! { connections::a_broker_that_never_answers_costs_only_what_is_sent_to_it on STANDARD }
        $test! { connections::a_broker_whose_answers_are_lost_has_what_is_not_certain on STANDARD }
        $test! { connections::a_broker_that_does_not_read_gets_nothing_that_was_given_up_unsent on STANDARD }
        $test! { connections::corrupt_replies_cost_their_connection_and_nothing_else on STANDARD }
        $test! { connections::doubled_replies_are_taken_once on STANDARD }
        $test! { lookups::a_name_server_that_goes_dark_is_left_for_one_that_answers on STANDARD }
        $test! { lookups::without_name_servers_known_topics_go_on on STANDARD }
        $test! { lookups::routes_that_lead_nowhere_are_not_believed on STANDARD }
        $test! { lookups::a_name_that_hangs_holds_up_no_other_server on STANDARD }
        $test! { lookups::a_crowd_of_first_messages_asks_once_for_its_topic on STANDARD }
        $test! { lookups::a_departing_broker_fails_no_send_and_gets_its_share_of_first_attempts on STANDARD }
        $test! { lookups::a_server_that_moves_to_another_address_is_found on STANDARD }
        $test! { consumption::lost_and_late_pull_replies_leave_no_queue_unread on STANDARD }
        $test! { consumption::a_queue_whose_pull_reply_is_lost_is_read_again_soon_after_the_hold_time on STANDARD }
        $test! { consumption::failed_messages_that_no_broker_takes_for_a_while_are_not_lost on STANDARD }
        $test! { consumption::off_04_while_offset_queries_fail_nothing_is_consumed_and_then_nothing_is_missed on STANDARD }
        $test! { consumption::off_05_a_new_group_asks_for_the_truth_and_gets_everything on STANDARD }
        $test! { consumption::refused_commits_are_repeated_and_told_of on STANDARD }
        $test! { consumption::listeners_that_panic_hang_or_dawdle_hold_up_no_other on STANDARD }
        $test! { members::members_that_end_in_their_first_moments_are_listed_by_no_broker on STANDARD }
        $test! { members::a_member_that_is_listed_twice_leaves_no_queue_unread on STANDARD }
        $test! { members::member_lists_that_lie_take_no_queue_away on STANDARD }
        $test! { members::a_storm_of_members_that_come_and_go_loses_nothing on STANDARD }
        $test! { members::queues_that_come_and_go_cost_no_message on STANDARD }
        $test! { members::a_new_queue_is_read_from_its_first_message on STANDARD }
        $test! { shutdown::a_shutdown_at_any_moment_from_any_thread_ends_everything on STANDARD }
        $test! { shutdown::a_shutdown_among_late_and_lost_answers_ends_everything on STANDARD }
        $test! { crash::a_consumer_process_that_is_killed_again_and_again_loses_nothing on STANDARD }
        $test! { crash::a_killed_consumer_repeats_only_what_was_handled_in_its_last_moment on STANDARD }
        $test! { outage::an_outage_of_all_servers_costs_little_and_traffic_is_back_within_seconds on STANDARD }
        $test! { quiet::a_normal_life_logs_no_warning on STANDARD }
        $test! { quiet::brokers_that_are_away_are_a_few_lines on STANDARD }
        $test! { quiet::a_listener_that_fails_a_hundred_times_is_a_few_lines on STANDARD }
        $test! { clocks::a_clock_an_hour_behind_costs_no_subscription on STANDARD }
        $test! { clocks::a_member_that_stood_still_is_replaced_and_comes_back on STANDARD }
        $test! { connect::brokers_tell_which_release_they_run on STANDARD }
        $test! { kills::three_masters_killed_in_turn_cost_sixteen_threads_hardly_a_send on TRIPLE }
        $test! { kills::a_broker_killed_in_a_send_storm_costs_no_acknowledged_message on ISOLATED }
        $test! { kills::a_broker_killed_in_the_midst_of_consumption_costs_no_message on ISOLATED }
        $test! { kills::offsets_that_a_killed_broker_forgot_are_there_again_when_it_is_back on ISOLATED }
        $test! { routes::a_broker_that_is_added_removed_and_back_costs_no_message on ISOLATED }
        $test! { doctor::the_doctor_finds_nothing_wrong_where_nothing_is_wrong on STANDARD }
        $test! { doctor::the_doctor_names_name_servers_that_fail_and_goes_on_with_the_others on STANDARD }
        $test! { doctor::the_doctor_names_broker_addresses_that_fail on ISOLATED }
        $test! { doctor::the_doctor_names_what_is_wrong_with_a_topic on STRICT }
        $test! { doctor::the_doctor_names_what_is_wrong_with_a_group on STANDARD }
        $test! { server::a_created_topic_has_a_route_on_every_name_server on STANDARD }
        $test! { server::a_stored_message_is_counted_in_its_queue on STANDARD }
        $test! { server::a_committed_offset_is_told_again on STANDARD }
        $test! { server::a_killed_broker_comes_back_with_its_messages on ISOLATED }
    };
}
pub(crate) use for_each_scenario;
