//! The processes and their network.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::random::Random;
use crate::{SECRET, SERVERS, SYSTEM, WRITERS};

const NAME: &str = "talea-chaos";

struct Server {
    child: Child,
    /// A server ends with it.
    _stdin: Option<ChildStdin>,
    _stdout: BufReader<ChildStdout>,
    is_stopped: bool,
}

struct Program {
    child: Child,
    life: u32,
    is_stopped: bool,
}

pub struct Cluster {
    directory: PathBuf,
    namespaces: bool,
    width: u32,
    servers: Vec<Option<Server>>,
    /// Control addresses of each, as it said last.
    control: Vec<Vec<String>>,
    writers: Vec<Program>,
    followers: Vec<Child>,
    logs: Vec<PathBuf>,
    begun: Instant,
    struck: u32,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn failed(what: &str) -> impl Fn(std::io::Error) -> String + '_ {
    move |error| format!("{what}: {error}")
}

impl Cluster {
    pub fn start(directory: &Path, namespaces: bool, width: u32) -> Result<Self, String> {
        let mut cluster = Self {
            directory: directory.to_owned(),
            namespaces,
            width,
            servers: (0..SERVERS).map(|_| None).collect(),
            control: vec![vec![]; SERVERS as usize],
            writers: Vec::new(),
            followers: Vec::new(),
            logs: Vec::new(),
            begun: Instant::now(),
            struck: 0,
        };
        if namespaces {
            cluster.make_network()?;
        }
        (0..SERVERS).try_for_each(|server| cluster.start_server(server))?;
        for writer in 0..WRITERS {
            let program = cluster.spawn_writer(writer, 0, writer)?;
            cluster.writers.push(program);
        }
        for home in [SERVERS - 2, SERVERS - 1] {
            let follower = cluster.program("follower", home, &format!("follower-{home}"), &[])?;
            cluster.followers.push(follower);
        }
        Ok(cluster)
    }

    /// A command on a server's node.
    fn on(&self, server: u32, program: &Path) -> Command {
        if !self.namespaces {
            return Command::new(program);
        }
        // Nodes are told apart by their names.
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{NAME}-{server}"), "unshare", "--uts", "sh", "-c"]);
        command.args([&format!("hostname node-{server}; exec \"$0\" \"$@\"")]).arg(program);
        command
    }

    fn tell(&mut self, what: &str) {
        println!("{:7.3} s: {what}", self.begun.elapsed().as_secs_f64());
    }

    pub fn start_server(&mut self, server: u32) -> Result<(), String> {
        if self.servers[server as usize].is_some() {
            return Ok(());
        }
        let data = self.directory.join(format!("data-{server}"));
        std::fs::create_dir_all(&data).map_err(failed("making a directory"))?;
        let system =
            self.directory.join(if self.namespaces { format!("system-{server}") } else { "system".to_owned() });
        let leader: Vec<String> = self.control[0].iter().map(|address| format!("\"{address}\"")).collect();
        let interface =
            if self.namespaces { format!(r#","interface":"10.77.7.{}""#, server + 1) } else { String::new() };
        let fan_out = match self.width {
            0 => String::new(),
            width => format!(r#","fan_out":{{"direct":0,"width":{width}}}"#),
        };
        let config = format!(
            r#"{{"name":"chaos","system":"{}","secret":"{}","server":{server},"servers":{SERVERS},"targets":2,"tier":"pmem:{}:48M","directory":"{}","leader":[{}]{interface}{fan_out}}}"#,
            hex(&SYSTEM),
            hex(&SECRET),
            data.display(),
            system.display(),
            leader.join(",")
        );
        let log = self.directory.join(format!("server-{server}.log"));
        let log = File::options().create(true).append(true).open(log).map_err(failed("a server's log"))?;
        let mut command = self.on(server, Path::new(env!("CARGO_BIN_EXE_talead")));
        command.args(["serve", "--config", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().map_err(failed("starting a server"))?;
        let mut stdin = child.stdin.take();
        if let Some(stdin) = &mut stdin {
            stdin.write_all((config + "\n").as_bytes()).map_err(failed("a server's configuration"))?;
        }
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line).map_err(failed("a server's first word"))?;
        let said: serde_json::Value = serde_json::from_str(&line)
            .map_err(|error| format!("server {server} does not start: {error}: {line:?}"))?;
        let addresses = said["control"].as_array().into_iter().flatten();
        self.control[server as usize] = addresses.filter_map(|text| text.as_str().map(str::to_owned)).collect();
        self.servers[server as usize] = Some(Server { child, _stdin: stdin, _stdout: stdout, is_stopped: false });
        self.tell(&format!("server {server} is started"));
        Ok(())
    }

    fn program(&mut self, what: &str, home: u32, log: &str, more: &[String]) -> Result<Child, String> {
        let this = std::env::current_exe().map_err(failed("finding this program"))?;
        let log = self.directory.join(format!("{log}.json"));
        let out = File::create(&log).map_err(failed("a program's output"))?;
        if what != "verify" {
            self.logs.push(log);
        }
        let mut command = self.on(home, &this);
        let address = self.control[home as usize].first().cloned().unwrap_or_default();
        command.arg(what).args(["--home", &address, "--server", &home.to_string()]).args(more);
        let errors = File::options().create(true).append(true).open(self.directory.join("programs.log"));
        command.stdin(Stdio::null()).stdout(out).stderr(errors.map_err(failed("a program's errors"))?);
        command.spawn().map_err(failed("starting a program"))
    }

    fn spawn_writer(&mut self, writer: u32, life: u32, home: u32) -> Result<Program, String> {
        let more = ["--writer", &writer.to_string(), "--life", &life.to_string()].map(str::to_owned);
        let child = self.program("writer", home, &format!("writer-{writer}-{life}"), &more)?;
        Ok(Program { child, life, is_stopped: false })
    }

    /// Servers that are dead or stopped.
    pub fn servers_gone(&self) -> usize {
        self.servers.iter().filter(|server| server.as_ref().is_none_or(|server| server.is_stopped)).count()
    }

    pub fn kill(&mut self, server: u32) -> bool {
        let Some(mut gone) = self.servers[server as usize].take() else { return false };
        self.struck += 1;
        self.tell(&format!("server {server} is killed"));
        let _ = gone.child.kill();
        let _ = gone.child.wait();
        true
    }

    pub fn stop(&mut self, server: u32) -> bool {
        let Some(running) = self.servers[server as usize].as_mut().filter(|server| !server.is_stopped) else {
            return false;
        };
        running.is_stopped = true;
        let is_done = kill_process(Pid::from_child(&running.child), Signal::STOP).is_ok();
        self.struck += 1;
        self.tell(&format!("server {server} is stopped"));
        is_done
    }

    pub fn go_on(&mut self, server: u32) -> Result<(), String> {
        let Some(stopped) = self.servers[server as usize].as_mut().filter(|server| server.is_stopped) else {
            return Ok(());
        };
        stopped.is_stopped = false;
        kill_process(Pid::from_child(&stopped.child), Signal::CONT).map_err(|error| error.to_string())?;
        self.tell(&format!("server {server} goes on"));
        Ok(())
    }

    pub fn kill_writer(&mut self, writer: u32) -> Result<(), String> {
        self.struck += 1;
        self.tell(&format!("writer {writer} is killed"));
        self.writers[writer as usize].child.kill().map_err(failed("killing a writer"))
    }

    pub fn stop_writer(&mut self, writer: u32) -> bool {
        let program = &mut self.writers[writer as usize];
        if program.is_stopped || kill_process(Pid::from_child(&program.child), Signal::STOP).is_err() {
            return false;
        }
        program.is_stopped = true;
        self.struck += 1;
        self.tell(&format!("writer {writer} is stopped"));
        true
    }

    pub fn writer_goes_on(&mut self, writer: u32) -> Result<(), String> {
        let program = &mut self.writers[writer as usize];
        if std::mem::take(&mut program.is_stopped) {
            let _ = kill_process(Pid::from_child(&program.child), Signal::CONT);
        }
        Ok(())
    }

    /// Writers that were killed begin again, at home somewhere else. None ends by itself.
    pub fn revive_writers(&mut self, random: &mut Random) -> Result<(), String> {
        for writer in 0..WRITERS {
            let program = &mut self.writers[writer as usize];
            let Some(status) = program.child.try_wait().map_err(failed("waiting for a writer"))? else { continue };
            if status.code().is_some() {
                return Err(format!("writer {writer} ended by itself: {status}"));
            }
            let (life, home) = (program.life + 1, random.below(SERVERS.into()) as u32);
            self.writers[writer as usize] = self.spawn_writer(writer, life, home)?;
            self.tell(&format!("writer {writer} begins again, at server {home}"));
        }
        Ok(())
    }

    /// All servers back, all writers dead.
    pub fn settle(&mut self) -> Result<(), String> {
        // Commits after all faults show that the system goes on.
        let (begun, before) = (Instant::now(), self.commits());
        while self.commits() < before + 10 {
            if begun.elapsed() > Duration::from_secs(60) {
                return Err("no commit goes through a minute after the last fault".to_owned());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        for program in &mut self.writers {
            program.child.kill().map_err(failed("killing a writer"))?;
            program.child.wait().map_err(failed("waiting for a writer"))?;
        }
        for follower in &mut self.followers {
            if let Some(status) = follower.try_wait().map_err(failed("waiting for a follower"))? {
                return Err(format!("a follower ended by itself: {status}"));
            }
            follower.kill().map_err(failed("killing a follower"))?;
            follower.wait().map_err(failed("waiting for a follower"))?;
        }
        println!("chaos: {} faults struck", self.struck);
        Ok(())
    }

    /// Commits that writers were told of.
    fn commits(&self) -> usize {
        let is_commit = |line: &&str| line.contains(r#""call":"commit""#) && line.contains(r#""outcome":"ok""#);
        let text = |log: &PathBuf| std::fs::read_to_string(log).unwrap_or_default();
        self.logs.iter().map(|log| text(log).lines().filter(is_commit).count()).sum()
    }

    /// Compares what is there with what was said, from two servers.
    pub fn verify(&mut self) -> Result<(), String> {
        let logs: Vec<String> = self.logs.iter().map(|log| log.display().to_string()).collect();
        for home in [0, SERVERS - 1] {
            let mut child = self.program("verify", home, &format!("verify-{home}"), &logs)?;
            let status = child.wait().map_err(failed("waiting for the comparison"))?;
            print!(
                "{}",
                std::fs::read_to_string(self.directory.join(format!("verify-{home}.json"))).unwrap_or_default()
            );
            if !status.success() {
                return Err(format!("what server {home} shows is not what was said"));
            }
        }
        Ok(())
    }

    /// What the programs and servers said last, for people.
    pub fn tell_last_words(&self) {
        let servers = (0..SERVERS).map(|server| format!("server-{server}.log"));
        for name in std::iter::once("programs.log".to_owned()).chain(servers) {
            let text = std::fs::read_to_string(self.directory.join(&name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            println!("---- {name}\n{}", lines[lines.len().saturating_sub(10)..].join("\n"));
        }
    }
}

/// The network of namespaces.
impl Cluster {
    fn make_network(&self) -> Result<(), String> {
        self.remove_network();
        let switch = format!("{NAME}-switch");
        run("ip", &["netns", "add", &switch])?;
        run("ip", &["-n", &switch, "link", "add", "br0", "type", "bridge"])?;
        run("ip", &["-n", &switch, "link", "set", "br0", "up"])?;
        for server in 0..SERVERS {
            let (node, port) = (format!("{NAME}-{server}"), format!("port{server}"));
            run("ip", &["netns", "add", &node])?;
            run("ip", &["-n", &node, "link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", &switch])?;
            run("ip", &["-n", &switch, "link", "set", &port, "master", "br0", "up"])?;
            run("ip", &["-n", &node, "address", "add", &format!("10.77.7.{}/24", server + 1), "dev", "eth0"])?;
            run("ip", &["-n", &node, "link", "set", "eth0", "up"])?;
            run("ip", &["-n", &node, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    fn remove_network(&self) {
        for name in (0..SERVERS).map(|server| server.to_string()).chain(["switch".to_owned()]) {
            let _ = Command::new("ip").args(["netns", "del", &format!("{NAME}-{name}")]).stderr(Stdio::null()).status();
        }
    }

    /// Servers of the mask and the others hear nothing of each other; or the others only hear nothing of them. With all that runs
    /// on their nodes.
    pub fn partition(&mut self, mask: u32, one_way: bool) -> Result<bool, String> {
        if !self.namespaces {
            return Ok(false);
        }
        let is_in = |server: &u32| mask & (1 << server) != 0;
        let addresses = |servers: &mut dyn Iterator<Item = u32>| {
            servers.map(|server| format!("10.77.7.{}", server + 1)).collect::<Vec<String>>().join(", ")
        };
        let (some, others) =
            (addresses(&mut (0..SERVERS).filter(is_in)), addresses(&mut (0..SERVERS).filter(|server| !is_in(server))));
        for server in 0..SERVERS {
            let from = match is_in(&server) {
                true if one_way => continue,
                true => &others,
                false => &some,
            };
            let rules = format!(
                "table inet talea {{ chain input {{ type filter hook input priority 0; ip saddr {{ {from} }} drop; }}; }}"
            );
            run("ip", &["netns", "exec", &format!("{NAME}-{server}"), "nft", &rules])?;
        }
        self.struck += 1;
        self.tell(&format!(
            "nodes {others} hear nothing of {some}{}",
            if one_way { "" } else { ", nor these of them" }
        ));
        Ok(true)
    }

    pub fn heal(&mut self) -> Result<(), String> {
        for server in 0..SERVERS {
            run("ip", &["netns", "exec", &format!("{NAME}-{server}"), "nft", "flush", "ruleset"])?;
        }
        self.tell("the network is whole");
        Ok(())
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(failed(program))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim())),
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let programs = self.writers.iter_mut().map(|program| &mut program.child).chain(&mut self.followers);
        let servers = self.servers.iter_mut().flatten().map(|server| &mut server.child);
        for child in programs.chain(servers) {
            let _ = child.kill();
            let _ = child.wait();
        }
        if self.namespaces {
            self.remove_network();
        }
    }
}
