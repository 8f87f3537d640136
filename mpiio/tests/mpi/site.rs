//! One test's site: a directory with the driver beside the mock libtalea, a container, and mpiexec with a deadline.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A run that lasts longer hangs. MPICH polls, so four ranks on two cores are slow.
const DEADLINE: Duration = Duration::from_secs(120);

/// What differs between the families of MPI in these tests.
pub(crate) struct Family {
    /// The driver's file name without its ending.
    pub(crate) driver: &'static str,
    mock: &'static str,
    /// Another family's driver, as it is built.
    other_driver: &'static str,
    pub(crate) cc: &'static str,
    pub(crate) fortran: &'static str,
    mpiexec: &'static [&'static str],
}

/// The family whose driver is tested.
#[cfg(family = "mpich")]
pub(crate) const FAMILY: Family = Family {
    driver: "libtalea_mpiio",
    mock: "libtalea_mock",
    other_driver: "libtalea_mpiio_openmpi",
    cc: "mpicc.mpich",
    fortran: "mpifort.mpich",
    mpiexec: &["mpiexec.mpich"],
};

/// The family whose driver is tested.
#[cfg(family = "openmpi")]
pub(crate) const FAMILY: Family = Family {
    driver: "libtalea_mpiio_openmpi",
    mock: "libtalea_mock_openmpi",
    other_driver: "libtalea_mpiio",
    cc: "mpicc.openmpi",
    fortran: "mpifort.openmpi",
    mpiexec: &["mpiexec.openmpi", "--allow-run-as-root", "--oversubscribe"],
};

/// What a run left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) success: bool,
    pub(crate) output: String,
}

impl Ended {
    /// Fails the test unless the program ended well.
    #[track_caller]
    pub(crate) fn well(self) -> String {
        assert!(self.success, "the program failed:\n{}", self.output);
        self.output
    }
}

/// The driver's name in a site.
pub(crate) const DRIVER: &str = "libtalea_mpiio.so";

/// A directory with libraries, a container `run`, and room for local files.
pub(crate) struct Site {
    directory: TempDir,
    variables: Vec<(String, String)>,
    preloads: Vec<PathBuf>,
    driver: &'static str,
}

/// Directory of what cargo has built for this profile.
fn built() -> PathBuf {
    let exe = std::env::current_exe().expect("a test knows its own path");
    exe.ancestors().nth(2).expect("tests lie in target/PROFILE/deps").to_owned()
}

impl Site {
    pub(crate) fn new() -> Site {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let site = Site { directory, variables: Vec::new(), preloads: Vec::new(), driver: DRIVER };
        let libraries =
            [(format!("deps/{}.so", FAMILY.driver), DRIVER), (format!("examples/{}.so", FAMILY.mock), "libtalea.so.0")];
        for (from, to) in libraries {
            std::fs::copy(built().join(&from), site.path(to)).unwrap_or_else(|e| panic!("{from} is not built: {e}"));
        }
        std::fs::create_dir_all(site.path("store/run")).expect("a container");
        site
    }

    /// Sets a variable for the programs.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Site {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Preloads a library before the driver.
    pub(crate) fn preloading(mut self, library: PathBuf) -> Site {
        self.preloads.push(library);
        self
    }

    /// Preloads another family's driver, as if a script had hidden which MPI is started; with this family's beside it, or without.
    pub(crate) fn under_another_driver(mut self, beside: bool) -> Site {
        self.driver = "other.so";
        let other = built().join(format!("deps/{}.so", FAMILY.other_driver));
        std::fs::copy(&other, self.path(self.driver)).unwrap_or_else(|e| panic!("{}: {e}", other.display()));
        let mine = self.path(&format!("{}.so", FAMILY.driver));
        let moved = self.path(DRIVER);
        match (beside, mine == moved) {
            (true, true) => {}
            (true, false) => std::fs::rename(moved, mine).expect("the driver"),
            (false, _) => std::fs::remove_file(moved).expect("the driver"),
        }
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The committed bytes of `/talea/run/NAME`.
    pub(crate) fn committed(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path("store/run").join(name)).ok()
    }

    /// Calls that libtalea's mock noted.
    pub(crate) fn trace(&self) -> Vec<String> {
        std::fs::read_to_string(self.path("store/.trace")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// The command with the driver preloaded.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        self.prepare(&mut command);
        command
    }

    fn prepare(&self, command: &mut Command) {
        let mut preloads: Vec<String> = self.preloads.iter().map(|path| path.display().to_string()).collect();
        preloads.push(self.path(self.driver).display().to_string());
        command.env("LD_PRELOAD", preloads.join(":")).env("TALEA_MOCK_DIR", self.path("store"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
    }

    /// Runs a program on `ranks` ranks; its first argument is a directory for local files.
    pub(crate) fn run(&self, ranks: u32, program: &Path, arguments: &[&str]) -> Ended {
        // Only one MPI program at a time, also among test processes: MPICH polls, and two programs would starve each other.
        let _one = locked("mpi-programs");
        let mut command = Command::new(FAMILY.mpiexec[0]);
        command.args(&FAMILY.mpiexec[1..]);
        // The driver goes to the ranks, not to mpiexec.
        command.args(["-n", &ranks.to_string(), "env"]);
        let mut preloads: Vec<String> = self.preloads.iter().map(|path| path.display().to_string()).collect();
        preloads.push(self.path(self.driver).display().to_string());
        command.arg(format!("LD_PRELOAD={}", preloads.join(":")));
        command.arg(program).arg(self.directory.path()).args(arguments);
        command.env("TALEA_MOCK_DIR", self.path("store"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        within_deadline(command)
    }
}

fn within_deadline(mut command: Command) -> Ended {
    let output = tempfile::NamedTempFile::new().expect("a temporary file");
    let sink = || output.reopen().map(Stdio::from).expect("a second handle of the output");
    let mut child =
        command.stdin(Stdio::null()).stdout(sink()).stderr(sink()).spawn().expect("mpiexec: run tools/prepare test");
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait for mpiexec") {
            break Some(status);
        }
        if start.elapsed() > DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut bytes = Vec::new();
    let _ = std::fs::File::open(output.path()).and_then(|mut file| file.read_to_end(&mut bytes));
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if status.is_none() {
        text += "\n(the program did not end within its deadline)";
    }
    Ended { success: status.is_some_and(|status| status.success()), output: text }
}

/// Holds a lock among all test processes until the value is dropped.
fn locked(name: &str) -> std::fs::File {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.lock"));
    let file = std::fs::File::create(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    file.lock().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    file
}

/// Compiles a file of `tests/programs`.
pub(crate) fn compiled(name: &str, compiler: &str, flags: &[&str]) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let programs = if cfg!(family = "mpich") { "tests/programs" } else { "../tests/programs" };
    let source = package.join(programs).join(name);
    let variant: String = flags.iter().filter(|flag| flag.starts_with("-D")).copied().collect();
    let stem = format!("{}{variant}-{}", name.replace('.', "-"), FAMILY.cc);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&stem);
    // Another test process may be running it already: the new one takes its place at once or not at all.
    let _one = locked(&stem);
    let fresh = target.with_extension("new");
    let output = Command::new(compiler)
        .arg("-o")
        .arg(&fresh)
        .arg(&source)
        .args(flags)
        .output()
        .unwrap_or_else(|e| panic!("{compiler}: {e}: run tools/prepare test"));
    assert!(output.status.success(), "{compiler} {name}:\n{}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(&fresh, &target).unwrap_or_else(|e| panic!("{}: {e}", target.display()));
    target
}

/// A C program.
pub(crate) fn c_program(name: &str) -> PathBuf {
    compiled(name, FAMILY.cc, &["-std=gnu11", "-Wall", "-Werror", "-Wno-stringop-overflow", "-g", "-rdynamic", "-ldl"])
}
