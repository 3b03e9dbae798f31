//! Java process that runs name servers and brokers (`host/Host.java`).
//!
//! It ends when its standard input ends. This process holds the other end, so it ends with the tests even if they are
//! killed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::scenarios::Server;

/// Options of a small, fast start, with the reflection that both server versions need.
const OPTIONS: [&str; 10] = [
    "-Xms128m",
    "-Xmx512m",
    "-XX:MaxDirectMemorySize=512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
];

/// Version 4 reads its files in the home folder, version 5 the one on the class path; all have the same content.
const LOG_CONFIGS: [&str; 3] = ["logback_namesrv.xml", "logback_broker.xml", "rmq.logback.xml"];
const NO_LOG: &str = "<configuration><root level=\"OFF\"/></configuration>\n";

/// A running process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Jvm {
    child: Child,
    output: PathBuf,
}

impl Jvm {
    /// Starts the roles, each a `namesrv=FILE` or `broker=FILE`, in a process whose files lie under `home`.
    pub(crate) fn start(server: Server, home: &Path, name: &str, roles: &[String]) -> Result<Self, String> {
        let output = home.join(format!("{name}.out"));
        let log = prepare(home, &output).map_err(|error| format!("files in {}: {error}", home.display()))?;
        let both = log.try_clone().map_err(|error| error.to_string())?;
        let child = command(server, home)?
            .arg("Host")
            .arg(home)
            .args(roles)
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(both)
            .spawn()
            .map_err(|error| format!("java does not start ({error}): run tests/run, which sets it up"))?;
        Ok(Self { child, output })
    }

    /// Reason why the process has ended, if it has.
    pub(crate) fn failure(&mut self) -> Option<String> {
        let status = self.child.try_wait().expect("the state of a child process")?;
        Some(format!("{status}\n{}", self.last_output()))
    }

    /// Last part of its output.
    pub(crate) fn last_output(&self) -> String {
        let text = fs::read_to_string(&self.output).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Kills the process and waits until it has ended.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a child process can be killed");
        self.child.wait().expect("a killed child process ends");
    }
}

impl Drop for Jvm {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Builds the command of a Java process of this version with its files under `home`, up to the name of its main class.
pub(crate) fn command(server: Server, home: &Path) -> Result<Command, String> {
    let mut command = Command::new(java());
    command
        .args(OPTIONS)
        .arg("--add-opens=java.base/jdk.internal.misc=ALL-UNNAMED")
        .arg(define("rocketmq.home.dir", home))
        .arg(define("user.home", home))
        .arg("-cp")
        .arg(class_path(server, home)?);
    Ok(command)
}

/// Path of the Java binary chosen by `tests/run`, or else the one on the path.
fn java() -> PathBuf {
    std::env::var_os("JAVA_HOME").map_or_else(|| "java".into(), |home| Path::new(&home).join("bin").join("java"))
}

/// Folder of the files that `tests/run` fetches and compiles once.
fn fetched() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("apache")
}

fn class_path(server: Server, home: &Path) -> Result<OsString, String> {
    let version = match server {
        Server::Apache4 => "4.9.7",
        Server::Apache5 => "5.5.0",
        Server::Mini => return Err("the mini broker is not a Java program".to_owned()),
    };
    let jars = fetched().join(format!("lib-{version}"));
    if !jars.join("complete").exists() {
        return Err(format!("no servers in {}: run tests/run, which fetches them", jars.display()));
    }
    let client = fetched().join(format!("client-{version}"));
    let parts = [home.join("conf"), fetched().join("host"), client, jars.join("*")];
    std::env::join_paths(parts).map_err(|error| error.to_string())
}

pub(crate) fn prepare(home: &Path, output: &Path) -> std::io::Result<File> {
    let conf = home.join("conf");
    fs::create_dir_all(&conf)?;
    for name in LOG_CONFIGS {
        fs::write(conf.join(name), NO_LOG)?;
    }
    File::options().create(true).append(true).open(output)
}

fn define(property: &str, value: &Path) -> OsString {
    let mut option = OsString::from(format!("-D{property}="));
    option.push(value);
    option
}
