//! Connections that fail in every way, under load: cut, reset, silent, slow, mute, deaf, corrupt, doubled.

use std::thread;
use std::time::{Duration, Instant};

use rocketmq_sync::Certainty;

use super::proxy::{Effect, Link, Mode};
use super::scene::{Dice, Scene, VICTIM, is_soak};
use super::storm::{Verdict, heavy_storm_while, storm_while};
use super::{Cluster, eventually};

/// Longer than any test: timers with this interval do not fire in one.
const NEVER: Duration = Duration::from_secs(60 * 60);
const SILENCE: Duration = Duration::from_secs(1);

pub(crate) fn connections_cut_in_mid_frame_cost_no_acknowledged_message(cluster: &dyn Cluster) {
    let scene = Scene::new(cluster, |client| client);
    let requests = scene.proxy.on(&[]).every(50).meet(Effect::Cut);
    let replies = scene.proxy.on(&[]).every(50).meet(Effect::CutReply);
    let outcomes = scene.storm_until(vec![requests, replies], if is_soak() { 500 } else { 10 });
    scene.end(&outcomes);
}

/// Every 50 to 500 ms all connections are reset. Heartbeats are sent only for new connections; afterwards both brokers
/// list the consumer nevertheless.
pub(crate) fn connections_reset_every_moment_cost_no_acknowledged_message_and_no_membership(cluster: &dyn Cluster) {
    let scene = Scene::new(cluster, |client| client.heartbeat_interval(NEVER));
    let mut dice = Dice::cast();
    let mut resets = 0;
    let outcomes = storm_while(&scene.producer, &scene.topic, None, |outcomes| {
        let end = Instant::now() + Duration::from_secs(if is_soak() { 60 } else { 4 });
        while Instant::now() < end || resets < 10 {
            thread::park_timeout(Duration::from_millis(50 + dice.below(450)));
            resets += scene.proxy.links().iter().map(Link::reset).sum::<usize>();
        }
        scene.goes_on(outcomes);
    });
    scene.await_membership();
    println!("{resets} connections reset");
    scene.end(&outcomes);
}

/// The path between the ends is lost during the storm, without any notice.
pub(crate) fn connections_that_carry_nothing_any_more_are_replaced(cluster: &dyn Cluster) {
    let scene = Scene::new(cluster, |client| client.silence_limit(SILENCE));
    let outcomes = storm_while(&scene.producer, &scene.topic, Some(scene.victims_queue()), |outcomes| {
        scene.goes_on(outcomes);
        let dead: usize = scene.proxy.brokers().iter().map(Link::abandon).sum();
        assert!(dead >= cluster.brokers().len(), "{dead} connections");
        scene.goes_on(outcomes);
    });
    assert!(scene.proxy.brokers().iter().all(|link| link.swallowed() > 0), "nothing was lost");
    scene.end(&outcomes);
}

/// The path is lost while only held pulls are in flight: without any call the client pulls again, and is a member
/// again.
pub(crate) fn an_idle_client_finds_out_that_its_connections_are_dead(cluster: &dyn Cluster) {
    let scene = Scene::new(cluster, |client| client.silence_limit(SILENCE).heartbeat_interval(NEVER));
    eventually("every broker holds a pull", || scene.proxy.brokers().iter().all(|link| link.connections() > 0));
    let dead: usize = scene.proxy.links().iter().map(Link::abandon).sum();
    assert!(dead > cluster.brokers().len(), "{dead} connections");
    eventually("new connections to all brokers", || scene.proxy.brokers().iter().all(|link| link.connections() > 0));
    let outcomes = storm_while(&scene.producer, &scene.topic, None, |outcomes| scene.goes_on(outcomes));
    assert_eq!(outcomes.failed(Certainty::NotSent) + outcomes.failed(Certainty::Unknown), 0, "{}", outcomes.summary());
    scene.await_membership();
    scene.end(&outcomes);
}

/// Slow replies are late, and late replies alone close no connection.
pub(crate) fn slow_replies_cost_no_connection(cluster: &dyn Cluster) {
    let scene = Scene::new(cluster, |client| client.silence_limit(SILENCE));
    let victim = scene.proxy.broker(VICTIM);
    let before = victim.accepted();
    let outcomes = storm_while(&scene.producer, &scene.topic, Some(scene.victims_queue()), |outcomes| {
        scene.goes_on(outcomes);
        victim.set(Mode::Drip(100));
        eventually("replies come too late", || outcomes.failed(Certainty::Unknown) >= 3);
        victim.set(Mode::Pass);
        scene.goes_on(outcomes);
    });
    assert_eq!(victim.accepted(), before, "connections that were made anew");
    scene.end(&outcomes);
}

/// A peer reads and never answers.
pub(crate) fn a_broker_that_never_answers_costs_only_what_is_sent_to_it(cluster: &dyn Cluster) {
    let scene = Scene::new(cluster, |client| client.silence_limit(SILENCE));
    let outcomes = scene.storm_with(Mode::BlackHole, |outcomes| {
        eventually("sends to the victim fail", || outcomes.failed(Certainty::Unknown) >= 3);
    });
    assert!(scene.proxy.broker(VICTIM).swallowed() > 0);
    scene.end(&outcomes);
}

/// Requests arrive, responses do not: messages reported as unknown are mostly stored, and are consumed.
pub(crate) fn a_broker_whose_answers_are_lost_has_what_is_not_certain(cluster: &dyn Cluster) {
    let scene = Scene::new(cluster, |client| client.silence_limit(SILENCE));
    let outcomes = scene.storm_with(Mode::Mute, |outcomes| {
        eventually("sends to the victim fail", || outcomes.failed(Certainty::Unknown) >= 3);
    });
    let unknown = outcomes.bodies(Verdict::Failed(Certainty::Unknown));
    eventually("one of them is stored", || unknown.iter().any(|body| scene.consumed.has(body)));
    scene.end(&outcomes);
}

/// Requests that wait for a peer that does not read fail as not sent, and never reach it; requests in flight may.
pub(crate) fn a_broker_that_does_not_read_gets_nothing_that_was_given_up_unsent(cluster: &dyn Cluster) {
    let scene = Scene::new(cluster, |client| client.silence_limit(Duration::from_secs(20)).outbox_limit(256 * 1024));
    let victim = scene.proxy.broker(VICTIM);
    let queue = Some(scene.victims_queue());
    let outcomes = heavy_storm_while(&scene.producer, &scene.topic, queue, 30_000, |outcomes| {
        scene.goes_on(outcomes);
        victim.set(Mode::Deaf);
        eventually("sends fail unsent", || outcomes.failed(Certainty::NotSent) >= 3);
        victim.set(Mode::Pass);
        scene.goes_on(outcomes);
    });
    scene.end(&outcomes);
}

pub(crate) fn corrupt_replies_cost_their_connection_and_nothing_else(cluster: &dyn Cluster) {
    let scene = Scene::new(cluster, |client| client);
    let faults = vec![scene.proxy.on(&[]).every(50).meet(Effect::CorruptReply)];
    let outcomes = scene.storm_until(faults, if is_soak() { 500 } else { 10 });
    scene.end(&outcomes);
}

pub(crate) fn doubled_replies_are_taken_once(cluster: &dyn Cluster) {
    let scene = Scene::new(cluster, |client| client);
    let before: usize = scene.proxy.brokers().iter().map(Link::accepted).sum();
    let faults = vec![scene.proxy.on(&[]).every(2).meet(Effect::DuplicateReply)];
    let outcomes = scene.storm_until(faults, if is_soak() { 10_000 } else { 500 });
    assert_eq!(outcomes.failed(Certainty::NotSent) + outcomes.failed(Certainty::Unknown), 0, "{}", outcomes.summary());
    assert_eq!(scene.proxy.brokers().iter().map(Link::accepted).sum::<usize>(), before);
    scene.end(&outcomes);
}
