//! The Slurm allocation that a process runs in, from Slurm's environment variables (sbatch(1), "OUTPUT ENVIRONMENT VARIABLES").

use thiserror::Error;

/// An allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// `SLURM_JOB_ID`.
    pub job: u32,
    /// Number of nodes.
    pub nodes: u32,
    /// Compressed node list, as `scontrol show hostnames` takes it.
    pub node_list: String,
}

/// An environment that speaks of a job and then contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{variable}='{value}' in a Slurm job is not usable: {remedy}")]
pub struct AllocationError {
    /// Which variable.
    pub variable: &'static str,
    /// Its value.
    pub value: String,
    /// What to do.
    pub remedy: &'static str,
}

impl Allocation {
    /// The allocation that `variable` (a look-up of the environment) tells of, or `None` outside of a job.
    pub fn detect(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, AllocationError> {
        let Some(job) = variable("SLURM_JOB_ID") else { return Ok(None) };
        let remedy = "run inside salloc or sbatch, or unset the SLURM_* variables to run outside of the job";
        let number = |name: &'static str, value: String| {
            value.parse().map_err(|_| AllocationError { variable: name, value, remedy })
        };
        let nodes = variable("SLURM_JOB_NUM_NODES").or_else(|| variable("SLURM_NNODES")).unwrap_or_else(|| "1".into());
        let nodes = number("SLURM_JOB_NUM_NODES", nodes)?;
        if nodes == 0 {
            return Err(AllocationError { variable: "SLURM_JOB_NUM_NODES", value: "0".into(), remedy });
        }
        Ok(Some(Self {
            job: number("SLURM_JOB_ID", job)?,
            nodes,
            node_list: variable("SLURM_JOB_NODELIST").or_else(|| variable("SLURM_NODELIST")).unwrap_or_default(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(variables: &[(&str, &str)]) -> Result<Option<Allocation>, AllocationError> {
        let look_up = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
        Allocation::detect(look_up)
    }

    #[test]
    fn finds_the_job_or_none() {
        assert_eq!(detect(&[]), Ok(None));
        let found = detect(&[("SLURM_JOB_ID", "17"), ("SLURM_JOB_NUM_NODES", "4"), ("SLURM_JOB_NODELIST", "n[1-4]")]);
        assert_eq!(found, Ok(Some(Allocation { job: 17, nodes: 4, node_list: "n[1-4]".into() })));
        assert!(detect(&[("SLURM_JOB_ID", "x")]).is_err());
        assert!(detect(&[("SLURM_JOB_ID", "1"), ("SLURM_JOB_NUM_NODES", "0")]).is_err());
    }
}
