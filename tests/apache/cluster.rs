//! Name servers and brokers in their own Java processes, shared between tests or owned by one.
//!
//! A shared cluster is one process. An owned one has a process per role, so that one broker can be killed. Both
//! versions are started first and then waited for, so that they boot in parallel. Stores are in cargo's temporary
//! folder and are removed with the processes; leftovers of a killed test run are removed at the next start.

use std::any::Any;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rocketmq_sync::unversioned::wire::{RemotingCommand, RequestCode, ResponseCode};
use serde_json::json;

use crate::jvm::Jvm;
use crate::ports::free_port;
use crate::scenarios::raw::{self, fields};
use crate::scenarios::{Broker, Cluster, Profile, Server};

/// A boot takes 4 to 10 seconds on an idle machine and ten times as long on a crowded one.
const BOOT_LIMIT: Duration = Duration::from_secs(180);

/// Settings that make a broker small, quiet and fast; ignored by a version that does not support them. Without them,
/// the interval of the transaction metrics keeps a core of a 5.5.0 broker busy for its first seconds, and the timer's
/// flush a quarter of one permanently. By default, requests that wait 200 ms for a thread, or a second for the store,
/// are refused: on a crowded machine that would be frequent.
const BROKER_SETTINGS: &str = "\
brokerClusterName=DefaultCluster
brokerId=0
brokerIP1=127.0.0.1
mappedFileSizeCommitLog=16777216
mappedFileSizeConsumeQueue=60000
maxHashSlotNum=5000
maxIndexNum=20000
diskMaxUsedSpaceRatio=98
flushConsumerOffsetInterval=500
waitTimeMillsInSendQueue=30000
osPageCacheBusyTimeOutMills=30000
transactionMetricFlushInterval=200
timerFlushIntervalMs=60000
";

/// Returns the cluster of this server and profile that all tests share, started at its first use.
pub(crate) fn shared(server: Server, profile: &'static Profile) -> &'static dyn Cluster {
    match launched(server, profile).ready() {
        Ok(cluster) => cluster,
        Err(reason) => panic!("no {server:?} cluster: {reason}"),
    }
}

/// Starts a cluster for one test.
pub(crate) fn own(server: Server, profile: &'static Profile) -> impl Cluster {
    match ApacheCluster::start(server, profile) {
        Ok(cluster) => cluster,
        Err(reason) => panic!("no {server:?} cluster: {reason}"),
    }
}

/// Shared cluster: started when any test requests its profile, waited for by the tests that use it.
struct Shared {
    server: Server,
    profile: &'static Profile,
    begun: Mutex<Option<Result<ApacheCluster, String>>>,
    ready: OnceLock<Result<ApacheCluster, String>>,
}

impl Shared {
    fn begin(server: Server, profile: &'static Profile) -> &'static Self {
        let begun = Mutex::new(Some(ApacheCluster::begin(server, profile)));
        Box::leak(Box::new(Self { server, profile, begun, ready: OnceLock::new() }))
    }

    fn ready(&'static self) -> Result<&'static ApacheCluster, &'static String> {
        let begun = || lock(&self.begun).take();
        self.ready
            .get_or_init(|| match begun() {
                Some(begun) => begun.and_then(ApacheCluster::await_ready),
                None => ApacheCluster::start(self.server, self.profile),
            })
            .as_ref()
    }
}

/// Starts a profile on both versions at once: the second boots while the first one's tests run.
fn launched(server: Server, profile: &'static Profile) -> &'static Shared {
    static ALL: Mutex<Vec<&'static Shared>> = Mutex::new(Vec::new());
    let mut all = lock(&ALL);
    if !all.iter().any(|shared| shared.profile.name == profile.name) {
        all.extend([Server::Apache4, Server::Apache5].map(|server| Shared::begin(server, profile)));
    }
    all.iter().find(|shared| shared.server == server && shared.profile.name == profile.name).expect("just begun")
}

/// Processes, addresses and files of one cluster.
struct ApacheCluster {
    server: Server,
    home: PathBuf,
    name_servers: Vec<SocketAddr>,
    brokers: Vec<Broker>,
    processes: Mutex<Vec<Process>>,
}

/// Java process and its start parameters.
struct Process {
    name: String,
    roles: Vec<String>,
    jvm: Jvm,
}

impl ApacheCluster {
    fn start(server: Server, profile: &Profile) -> Result<Self, String> {
        Self::begin(server, profile)?.await_ready()
    }

    /// Starts the processes and returns at once.
    fn begin(server: Server, profile: &Profile) -> Result<Self, String> {
        let name_servers: Vec<_> = (0..profile.name_servers).map(|_| loopback(free_port())).collect();
        let brokers: Vec<_> = (b'a'..)
            .take(profile.brokers)
            .map(|letter| Broker { name: format!("broker-{}", char::from(letter)), address: loopback(free_port()) })
            .collect();
        let mut cluster = Self {
            server,
            home: new_home(profile.name).map_err(|error| error.to_string())?,
            name_servers,
            brokers,
            processes: Mutex::default(),
        };
        let roles = cluster.write_configs(profile).map_err(|error| error.to_string())?;
        let groups = if profile.isolated {
            roles.into_iter().map(|(name, role)| (name, vec![role])).collect()
        } else {
            vec![("all".to_owned(), roles.into_iter().map(|(_, role)| role).collect())]
        };
        for (name, roles) in groups {
            let jvm = Jvm::start(server, &cluster.home, &name, &roles)?;
            cluster.processes.get_mut().expect("no other user yet").push(Process { name, roles, jvm });
        }
        Ok(cluster)
    }

    /// Waits until every name server lists every broker.
    fn await_ready(self) -> Result<Self, String> {
        self.await_brokers(&self.brokers)?;
        Ok(self)
    }

    fn await_brokers(&self, brokers: &[Broker]) -> Result<(), String> {
        let deadline = Instant::now() + BOOT_LIMIT;
        while !brokers.iter().all(|broker| self.is_up(broker)) {
            for process in lock(&self.processes).iter_mut() {
                if let Some(failure) = process.jvm.failure() {
                    return Err(format!("process {} ended: {failure}", process.name));
                }
                if Instant::now() > deadline {
                    let output = process.jvm.last_output();
                    return Err(format!("not up within {BOOT_LIMIT:?}; {} printed:\n{output}", process.name));
                }
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        Ok(())
    }

    /// True if the broker answers and every name server lists it.
    fn is_up(&self, broker: &Broker) -> bool {
        let quoted = format!("\"{}\"", broker.address);
        let any_request = RemotingCommand::request(RequestCode::GET_BROKER_CONFIG, &());
        raw::request(broker.address, any_request).is_ok()
            && self.name_servers.iter().all(|name_server| {
                let request = RemotingCommand::request(RequestCode::GET_BROKER_CLUSTER_INFO, &fields(&[]));
                raw::request(*name_server, request)
                    .is_ok_and(|answer| String::from_utf8_lossy(&answer.body).contains(&quoted))
            })
    }

    /// Writes the configurations. Returns names and roles of the servers in the order of their start.
    fn write_configs(&self, profile: &Profile) -> std::io::Result<Vec<(String, String)>> {
        let mut roles = Vec::new();
        for (index, address) in self.name_servers.iter().enumerate() {
            let name = format!("namesrv-{index}");
            let kv_config = self.home.join(format!("{name}.json"));
            let text = format!("listenPort={}\nkvConfigPath={}\n", address.port(), kv_config.display());
            roles.push((name.clone(), format!("namesrv={}", self.write_config(&name, &text)?)));
        }
        for broker in &self.brokers {
            let text = self.broker_config(broker, profile);
            roles.push((broker.name.clone(), format!("broker={}", self.write_config(&broker.name, &text)?)));
        }
        Ok(roles)
    }

    fn write_config(&self, name: &str, text: &str) -> std::io::Result<String> {
        let file = self.home.join(format!("{name}.conf"));
        fs::write(&file, text)?;
        Ok(file.display().to_string())
    }

    fn broker_config(&self, broker: &Broker, profile: &Profile) -> String {
        let name_servers: Vec<_> = self.name_servers.iter().map(ToString::to_string).collect();
        let store = self.home.join(&broker.name);
        let port = broker.address.port();
        format!(
            "{BROKER_SETTINGS}\
             brokerName={}\nlistenPort={port}\nhaListenPort={}\nnamesrvAddr={}\n\
             storePathRootDir={}\nstorePathCommitLog={}\n\
             autoCreateTopicEnable={}\nmaxMessageSize={}\nmessageDelayLevel={}\n",
            broker.name,
            port + 1,
            name_servers.join(";"),
            store.display(),
            store.join("commitlog").display(),
            profile.auto_create_topics,
            profile.max_message_size,
            profile.delay_levels,
        )
    }
}

impl Cluster for ApacheCluster {
    fn server(&self) -> Server {
        self.server
    }

    fn name_servers(&self) -> &[SocketAddr] {
        &self.name_servers
    }

    fn brokers(&self) -> &[Broker] {
        &self.brokers
    }

    fn kill_broker(&self, name: &str) {
        let mut processes = lock(&self.processes);
        let process = processes.iter_mut().find(|process| process.name == name);
        process.expect("a broker with a process of its own").jvm.kill();
    }

    /// Registers the broker over connections that are kept open: a name server removes a broker when its connection
    /// closes.
    fn tell_of_broker(&self, name: &str, address: SocketAddr, topic: &str) -> Box<dyn Any> {
        let address = address.to_string();
        let header = [
            ("brokerName", name),
            ("brokerAddr", &address),
            ("clusterName", "DefaultCluster"),
            ("haServerAddr", &address),
            ("brokerId", "0"),
            ("compressed", "false"),
            ("bodyCrc32", "0"),
        ];
        let version = json!({"stateVersion": 0, "timestamp": 1_700_000_000_000_i64, "counter": 1});
        let config = |topic: &str| {
            json!({
                "topicName": topic, "readQueueNums": 1, "writeQueueNums": 1, "perm": 6,
                "topicFilterType": "SINGLE_TAG", "topicSysFlag": 0, "order": false,
            })
        };
        // A name server of 5.x treats a single topic as a change of a registered broker.
        let other = format!("{topic}-other");
        let topics = json!({topic: config(topic), other.as_str(): config(&other)});
        let body = json!({
            "filterServerList": [],
            "topicConfigSerializeWrapper": {"dataVersion": version, "topicConfigTable": topics},
        });
        let connections: Vec<_> = self
            .name_servers
            .iter()
            .map(|name_server| {
                let request = RemotingCommand::request(RequestCode::REGISTER_BROKER, &fields(&header));
                let mut connection = raw::Connection::open(*name_server).expect("a connection");
                let answer = connection.request(request.with_body(body.to_string()), BOOT_LIMIT).expect("an answer");
                assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
                connection
            })
            .collect();
        Box::new(connections)
    }

    fn restart_broker(&self, name: &str) {
        let mut processes = lock(&self.processes);
        let process = processes.iter_mut().find(|process| process.name == name);
        let process = process.expect("a broker with a process of its own");
        process.jvm = Jvm::start(self.server, &self.home, name, &process.roles).expect("java");
        drop(processes);
        let restarted: Vec<_> = self.brokers.iter().filter(|broker| broker.name == name).cloned().collect();
        if let Err(reason) = self.await_brokers(&restarted) {
            panic!("{name} does not come back: {reason}");
        }
    }
}

impl Drop for ApacheCluster {
    fn drop(&mut self) {
        lock(&self.processes).clear();
        // Files that cannot be removed now are removed at the next start.
        let _ = fs::remove_dir_all(&self.home);
    }
}

/// Creates a folder for the files of Java processes; its name contains the id of the owning process.
pub(crate) fn new_home(profile: &str) -> std::io::Result<PathBuf> {
    static CLEANED: Once = Once::new();
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("apache");
    CLEANED.call_once(|| remove_leftovers(&root));
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let home = root.join(format!("{}-{number}-{profile}", std::process::id()));
    fs::create_dir_all(&home)?;
    Ok(home)
}

/// Removes the folders of processes that have ended.
fn remove_leftovers(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.split('-').next().is_some_and(|process| !is_alive(process)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_alive(process: &str) -> bool {
    let asked = Command::new("kill").args(["-0", process]).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A panicked test elsewhere does not make the processes unusable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
