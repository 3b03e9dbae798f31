//! Look-ups of routes: questions to the name servers, and the waiters for their answers.
//!
//! One question a topic is under way at a time, shared by all waiters, and one more for the queues that new topics
//! would get. Each waiter keeps its own deadline: the timer ends the wait of those without time, and a question that
//! ran out of time is asked again for the others. Routes are decoded on `rmq-timer`: a large one takes long, and the
//! selector serves all connections. Nothing here blocks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::route::{RouteWaiter, Routes};
use crate::error::{Error, ErrorKind, Result};
use crate::logging::warn;
use crate::name_map::NameMap;
use crate::remoting::{Completion, Outcome, Request};
use crate::wire::body::{BrokerData, TopicRouteData};
use crate::wire::header::GetRouteInfoRequest;
use crate::wire::{RequestCode, ResponseCode};

/// One name server gets this share of what is left of a question's time while there are others to ask.
const SHARE_OF_TIME: u32 = 3;
const SHORTEST_SHARE: Duration = Duration::from_millis(200);
/// That is enough for a server that lives, however much time its caller has: others may have joined who have less.
const LONGEST_SHARE: Duration = Duration::from_secs(1);
/// A question, and a job of the timer for its waiters, ends after this long, whatever deadlines there are; both are
/// begun anew then.
const LONGEST_ROUND: Duration = Duration::from_secs(10);

/// The look-ups under way, by topic. A pure table; [`Routes`] drives it.
#[derive(Default)]
pub(crate) struct LookUps {
    by_topic: NameMap<LookUp>,
}

#[derive(Default)]
struct LookUp {
    waiters: Vec<LookUpWaiter>,
    /// True if a waiter wants to send: for a missing topic the route of new topics counts.
    to_publish: bool,
    /// The timer looks for waiters whose deadline has passed at this moment.
    watched: Option<Instant>,
}

struct LookUpWaiter {
    deadline: Instant,
    run: RouteWaiter,
}

/// Work for the caller that joined a look-up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    /// True if no one waited before: the name servers are to be asked.
    pub(crate) is_first: bool,
    /// The timer is to call [`LookUps::expire`] at this moment.
    pub(crate) watch: Option<Instant>,
}

impl LookUps {
    pub(crate) fn join(
        &mut self,
        topic: &Arc<str>,
        to_publish: bool,
        deadline: Instant,
        now: Instant,
        run: RouteWaiter,
    ) -> Joined {
        let is_first = !self.by_topic.contains_key(topic);
        let look_up = self.by_topic.entry(Arc::clone(topic)).or_default();
        look_up.waiters.push(LookUpWaiter { deadline, run });
        look_up.to_publish |= to_publish;
        let due = deadline.min(now + LONGEST_ROUND);
        let watch = look_up.watched.is_none_or(|watched| due < watched).then_some(due);
        look_up.watched = watch.or(look_up.watched);
        Joined { is_first, watch }
    }

    /// The job of the timer for `due`: those whose deadline has passed, and when to look next.
    pub(crate) fn expire(&mut self, topic: &str, due: Instant, now: Instant) -> (Vec<RouteWaiter>, Option<Instant>) {
        let Some(look_up) = self.by_topic.get_mut(topic).filter(|look_up| look_up.watched == Some(due)) else {
            return (Vec::new(), None);
        };
        let late = look_up.take_late(now);
        let earliest = look_up.waiters.iter().map(|waiter| waiter.deadline).min();
        look_up.watched = earliest.map(|earliest| earliest.min(now + LONGEST_ROUND));
        (late, look_up.watched)
    }

    /// The look-up is over: all who wait for it.
    pub(crate) fn end(&mut self, topic: &str) -> Vec<RouteWaiter> {
        let waiters = self.by_topic.remove(topic).map_or_else(Vec::new, |look_up| look_up.waiters);
        waiters.into_iter().map(|waiter| waiter.run).collect()
    }

    /// Ends the look-up of a topic that does not exist. `None` if a waiter wants to send, which may create the topic.
    pub(crate) fn end_if_nobody_sends(&mut self, topic: &str) -> Option<Vec<RouteWaiter>> {
        let somebody_sends = self.by_topic.get(topic).is_some_and(|look_up| look_up.to_publish);
        (!somebody_sends).then(|| self.end(topic))
    }

    /// The question has had no answer in its time: those whose deadline has passed as well, and the latest deadline of
    /// the others, for whom it is asked again. Without any the look-up is over.
    pub(crate) fn out_of_time(&mut self, topic: &str, now: Instant) -> (Vec<RouteWaiter>, Option<Instant>) {
        let Some(look_up) = self.by_topic.get_mut(topic) else { return (Vec::new(), None) };
        let late = look_up.take_late(now);
        let latest = look_up.waiters.iter().map(|waiter| waiter.deadline).max();
        if latest.is_none() {
            self.by_topic.remove(topic);
        }
        (late, latest)
    }
}

impl LookUp {
    fn take_late(&mut self, now: Instant) -> Vec<RouteWaiter> {
        self.waiters.extract_if(.., |waiter| waiter.deadline <= now).map(|waiter| waiter.run).collect()
    }
}

type Answered = Box<dyn FnOnce(&RouteQuestion, Result<TopicRouteData>) + Send>;

/// One question to the name servers, in turn until one has the route.
///
/// A server that does not answer costs at most a share of the time. The topic counts as missing only when every server
/// that answers says so.
pub(crate) struct RouteQuestion {
    routes: Arc<Routes>,
    pub(crate) topic: Arc<str>,
    pub(crate) deadline: Instant,
    first: usize,
    asked: usize,
    unknown: Option<Error>,
    failed: Option<Error>,
    answered: Option<Answered>,
}

impl RouteQuestion {
    pub(crate) fn new(routes: &Arc<Routes>, topic: &Arc<str>, deadline: Instant, answered: Answered) -> Box<Self> {
        Box::new(Self {
            routes: Arc::clone(routes),
            topic: Arc::clone(topic),
            deadline: deadline.min(Instant::now() + LONGEST_ROUND),
            first: routes.current_server(),
            asked: 0,
            unknown: None,
            failed: None,
            answered: Some(answered),
        })
    }

    pub(crate) fn ask(self: Box<Self>) {
        let now = Instant::now();
        let servers = self.routes.name_servers();
        if self.asked == servers.len() || now >= self.deadline {
            return self.give_up();
        }
        let Some(server) = servers.get(self.current()).cloned() else {
            return self.give_up();
        };
        // Time is kept for the next step: another server, or the look-up of the queues that an unknown topic would get.
        let others = self.asked + 1 < servers.len() || self.unknown.is_some();
        let limit = if others { now + share(self.deadline - now) } else { self.deadline };
        let remoting = self.routes.remoting().clone();
        let topic = Arc::clone(&self.topic);
        let header = GetRouteInfoRequest { topic: &topic, accept_standard_json_only: Some(true) };
        let request = Request::new(RequestCode::GET_ROUTEINFO_BY_TOPIC, &header);
        let completion = Completion::new({
            let (server, timer) = (Arc::clone(&server), self.routes.timer.clone());
            move |outcome: Outcome| {
                if outcome.is_ok() {
                    // A large route takes long to decode, and the selector serves all connections meanwhile.
                    timer.at(Instant::now(), move || self.heard(&server, outcome));
                } else {
                    self.heard(&server, outcome);
                }
            }
        });
        remoting.invoke_async(&server, request, limit, completion);
    }

    fn heard(mut self: Box<Self>, server: &Arc<str>, outcome: Outcome) {
        match read_answer(server, outcome) {
            Ok(data) => {
                self.prefer_current();
                return self.finish(Ok(data));
            }
            Err(error) if error.kind() == ErrorKind::NoRoute => {
                // This server answers; those before it did not.
                if self.unknown.is_none() {
                    self.prefer_current();
                }
                self.unknown = Some(error);
            }
            // The client has ended: no other server is asked.
            Err(error) if error.is_of_an_ended_client() => return self.finish(Err(error)),
            Err(error) => self.failed = Some(error),
        }
        self.asked += 1;
        self.ask();
    }

    /// The index of the server that is being asked.
    fn current(&self) -> usize {
        (self.first + self.asked) % self.routes.name_servers().len().max(1)
    }

    /// Later questions begin with the server that is being asked.
    fn prefer_current(&self) {
        self.routes.note_answer(self.current());
    }

    fn give_up(mut self: Box<Self>) {
        let error = match (self.unknown.take(), self.failed.take()) {
            (Some(unknown), _) => {
                Error::new(ErrorKind::NoRoute, format!("topic {} has no route: {}", self.topic, unknown.detail()))
            }
            (None, Some(failed)) => Error::new(
                ErrorKind::NameServer,
                format!("no name server of {} answered; the last: {failed}", self.routes.name_servers().join(";")),
            ),
            (None, None) => self.routes.unheard(&self.topic),
        };
        self.finish(Err(error));
    }

    fn finish(mut self: Box<Self>, result: Result<TopicRouteData>) {
        if let Some(answered) = self.answered.take() {
            answered(&self, result);
        }
    }
}

/// A timer that ends drops the responses that it has not read.
impl Drop for RouteQuestion {
    fn drop(&mut self) {
        if let Some(answered) = self.answered.take() {
            answered(self, Err(self.routes.remoting.why_ended()));
        }
    }
}

/// The time for one name server of several.
fn share(left: Duration) -> Duration {
    (left / SHARE_OF_TIME).clamp(SHORTEST_SHARE, LONGEST_SHARE).min(left)
}

/// A name server's answer: a route that has brokers, or why there is none.
fn read_answer(server: &Arc<str>, outcome: Outcome) -> Result<TopicRouteData> {
    let response = outcome.map_err(Error::from)?;
    match response.response_code() {
        ResponseCode::SUCCESS => {}
        code @ ResponseCode::TOPIC_NOT_EXIST => {
            let refusal = Error::refused(code, response.remark.as_deref(), server);
            return Err(Error::new(ErrorKind::NoRoute, refusal.detail()).with_address(server));
        }
        code => return Err(Error::refused(code, response.remark.as_deref(), server)),
    }
    let data = TopicRouteData::decode(&response.body).map_err(|error| {
        warn!("route response of name server {server} invalid: {error}");
        Error::new(ErrorKind::Protocol, format!("reading the route failed: {error}")).with_address(server)
    })?;
    if !leads_somewhere(&data) {
        return Err(Error::new(ErrorKind::NoRoute, "the route has no broker").with_address(server));
    }
    Ok(data)
}

/// True if a queue is on a broker with an address. Any other route is ignored and replaces none.
fn leads_somewhere(data: &TopicRouteData) -> bool {
    data.queue_datas.iter().any(|queues| {
        let is_its_broker = |broker: &&BrokerData| broker.broker_name == queues.broker_name;
        data.broker_datas.iter().find(is_its_broker).is_some_and(|broker| !broker.broker_addrs.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::client::Client;
    use crate::wire::{FrameDecoder, RemotingCommand};

    const SECOND: Duration = Duration::from_secs(1);

    fn topic() -> Arc<str> {
        Arc::from("T")
    }

    fn join(look_ups: &mut LookUps, to_publish: bool, deadline: Instant, now: Instant) -> Joined {
        look_ups.join(&topic(), to_publish, deadline, now, Box::new(|_| ()))
    }

    #[test]
    fn whoever_has_less_time_than_those_before_is_told_at_its_own_deadline() {
        let (mut look_ups, now) = (LookUps::default(), Instant::now());
        let first = join(&mut look_ups, false, now + SECOND * 3, now);
        assert_eq!(first, Joined { is_first: true, watch: Some(now + SECOND * 3) });
        let second = join(&mut look_ups, false, now + SECOND, now);
        assert_eq!(second, Joined { is_first: false, watch: Some(now + SECOND) });
        assert_eq!(join(&mut look_ups, false, now + SECOND * 2, now).watch, None, "the job for the second comes first");

        let (late, next) = look_ups.expire("T", now + SECOND, now + SECOND);
        assert_eq!((late.len(), next), (1, Some(now + SECOND * 2)));
        let (late, next) = look_ups.expire("T", now + SECOND * 3, now + SECOND * 3);
        assert_eq!((late.len(), next), (0, None), "that job was replaced by an earlier one");
        assert_eq!(look_ups.end("T").len(), 2);
    }

    #[test]
    fn a_question_that_ends_for_want_of_time_is_asked_again_for_those_who_have_some() {
        let (mut look_ups, now) = (LookUps::default(), Instant::now());
        for seconds in [1, 3, 5] {
            join(&mut look_ups, true, now + SECOND * seconds, now);
        }
        let (late, again) = look_ups.out_of_time("T", now + SECOND);
        assert_eq!((late.len(), again), (1, Some(now + SECOND * 5)));
        assert!(!join(&mut look_ups, true, now + SECOND * 4, now).is_first, "it is under way");
        let (late, again) = look_ups.out_of_time("T", now + SECOND * 5);
        assert_eq!((late.len(), again), (3, None));
        assert!(join(&mut look_ups, true, now + SECOND * 9, now).is_first);
    }

    #[test]
    fn that_a_topic_does_not_exist_ends_a_look_up_in_which_nobody_wants_to_send() {
        let (mut look_ups, now) = (LookUps::default(), Instant::now());
        join(&mut look_ups, false, now + SECOND, now);
        assert_eq!(look_ups.end_if_nobody_sends("T").map(|told| told.len()), Some(1));
        join(&mut look_ups, false, now + SECOND, now);
        join(&mut look_ups, true, now + SECOND, now);
        assert!(look_ups.end_if_nobody_sends("T").is_none());
        assert_eq!(look_ups.end("T").len(), 2);
    }

    /// A name server with one route.
    fn name_server() -> String {
        const ROUTE: &str = r#"{"brokerDatas":[{"brokerName":"a","brokerAddrs":{"0":"127.0.0.1:1"},"cluster":"c"}],
            "queueDatas":[{"brokerName":"a","readQueueNums":1,"writeQueueNums":1,"perm":6,"topicSysFlag":0}]}"#;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serve = move || {
            let (mut socket, _) = listener.accept().unwrap();
            let (mut decoder, mut buffer) = (FrameDecoder::new(), [0; 4096]);
            while let Ok(count @ 1..) = socket.read(&mut buffer) {
                decoder.push(&buffer[..count]);
                while let Some(request) = decoder.next_command().unwrap() {
                    let mut response = Vec::new();
                    let route = RemotingCommand::response_to(&request, ResponseCode::SUCCESS, None).with_body(ROUTE);
                    route.encode(&mut response).unwrap();
                    socket.write_all(&response).unwrap();
                }
            }
        };
        thread::Builder::new().spawn(serve).unwrap();
        address
    }

    #[test]
    fn a_route_is_decoded_on_the_thread_of_the_timer() {
        let client = Client::builder().name_servers([name_server()]).start().unwrap();
        let (sender, found) = crossbeam_channel::bounded(1);
        let waiter = Box::new(move |route: Result<_>| {
            sender.send((route.is_ok(), thread::current().name().map(str::to_owned))).unwrap();
        });
        let deadline = Instant::now() + SECOND * 20;
        client.core().routes.look_up_to_publish(&topic(), deadline, waiter);
        assert_eq!(found.recv_deadline(deadline).unwrap(), (true, Some("rmq-timer".to_owned())));
    }

    #[test]
    fn a_question_that_is_dropped_has_an_answer() {
        let client = Client::builder().name_servers([name_server()]).start().unwrap();
        let (sender, answers) = crossbeam_channel::bounded(1);
        let answered = Box::new(move |_: &RouteQuestion, data: Result<_>| sender.send(data.map(drop)).unwrap());
        drop(RouteQuestion::new(&client.core().routes, &topic(), Instant::now() + SECOND, answered));
        assert_eq!(answers.try_recv().unwrap().unwrap_err().kind(), ErrorKind::NotRunning);
    }

    #[test]
    fn one_of_several_name_servers_gets_a_part_of_the_time_and_never_all_of_a_long_one() {
        assert_eq!(share(SECOND * 3), SECOND);
        assert_eq!(share(SECOND * 86_400), LONGEST_SHARE);
        assert_eq!(share(SECOND / 2), SHORTEST_SHARE);
        assert_eq!(share(SHORTEST_SHARE / 2), SHORTEST_SHARE / 2);
    }
}
