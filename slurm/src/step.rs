//! The arguments of the `srun` steps that Talea makes in an allocation, and what Slurm says about a job.

use crate::allocation::Allocation;

/// Arguments of `srun` for one task a node beside whatever else runs there (srun(1), `--overlap`).
pub fn one_a_node(allocation: &Allocation) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "--overlap",
        "--mpi=none",
        // A node's loss must not end the others.
        "--kill-on-bad-exit=0",
        "--no-kill",
        "--wait=0",
        // The servers see all of the job's cores and choose themselves.
        "--cpu-bind=none",
        "--mem=0",
        "--ntasks-per-node=1",
        "--export=ALL",
        "--quiet",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.push(format!("--jobid={}", allocation.job));
    arguments.push(format!("--nodes={}", allocation.nodes));
    arguments.push(format!("--ntasks={}", allocation.nodes));
    arguments
}

/// Variables of a surrounding step or submission that would steer our own `srun` astray.
pub const MISLEADING: &[&str] = &[
    "SLURM_NTASKS",
    "SLURM_NPROCS",
    "SLURM_NTASKS_PER_NODE",
    "SLURM_TASKS_PER_NODE",
    "SLURM_CPUS_PER_TASK",
    "SLURM_DISTRIBUTION",
    "SLURM_CPU_BIND",
    "SLURM_MEM_PER_CPU",
    "SLURM_MEM_PER_NODE",
    "SLURM_MEM_PER_GPU",
    "SLURM_EXACT",
    "SLURM_EXCLUSIVE",
    "SLURM_HINT",
    "SLURM_ARRAY_INX",
    "SLURM_SPREAD_JOB",
    "SLURM_LABELIO",
    "SLURM_UNBUFFEREDIO",
    "SLURM_STDINMODE",
    "SLURM_STDOUTMODE",
    "SLURM_STDERRMODE",
    "SLURM_MPI_TYPE",
];

/// Seconds of Slurm's notation for times (`squeue -O TimeLeft`): `[days-][[hours:]minutes:]seconds`. `None` for what is none,
/// such as `UNLIMITED`.
pub fn seconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (days.parse::<u64>().ok()?, rest),
        None => (0, text),
    };
    let mut total = 0u64;
    let mut parts = 0;
    for part in rest.split(':') {
        total = total.checked_mul(60)?.checked_add(part.parse().ok()?)?;
        parts += 1;
    }
    (parts <= 3).then(|| days.checked_mul(86_400)?.checked_add(total))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_understood() {
        assert_eq!(seconds("59"), Some(59));
        assert_eq!(seconds("1:05"), Some(65));
        assert_eq!(seconds(" 2:00:01\n"), Some(7201));
        assert_eq!(seconds("1-00:00:00"), Some(86_400));
        assert_eq!(seconds("UNLIMITED"), None);
        assert_eq!(seconds("1:2:3:4"), None);
        assert_eq!(seconds(""), None);
    }

    #[test]
    fn a_step_names_its_job_and_each_node_once() {
        let allocation = Allocation { job: 7, nodes: 3, node_list: "n[1-3]".into() };
        let arguments = one_a_node(&allocation);
        for wanted in ["--overlap", "--jobid=7", "--nodes=3", "--ntasks=3", "--ntasks-per-node=1"] {
            assert!(arguments.iter().any(|argument| argument == wanted), "{wanted}");
        }
    }
}
