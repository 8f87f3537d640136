//! A kept system that goes on without some of its nodes: what of it can be used, in words.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use talea_client::{Client, ClientError};
use talea_model::PoolMap;

use crate::failure::Failure;
use crate::notice::count;
use crate::system::Started;

/// How long the pool may take to notice that servers are not there, beside its membership lease.
const PATIENCE: Duration = Duration::from_secs(10);

/// Says which servers a system lacks and what that means, once its pool knows that they are not there: before that, calls would
/// wait for them.
pub(crate) fn tell(client: &Client, started: &Started) -> Result<(), Failure> {
    if started.missing.is_empty() {
        return Ok(());
    }
    let missing: BTreeSet<u32> = started.missing.iter().map(|(server, _)| *server).collect();
    let patience = PATIENCE + 3 * Duration::from_millis(started.plan.site.membership_lease_ms);
    let began = Instant::now();
    while !are_down(&client.status()?.map, &missing) && began.elapsed() < patience {
        std::thread::sleep(Duration::from_millis(50));
    }
    eprintln!("talea: {}", words(&started.missing, started.plan.servers, &steps(client)?));
    Ok(())
}

fn are_down(map: &PoolMap, servers: &BTreeSet<u32>) -> bool {
    let mut theirs = map.targets.iter().filter(|target| servers.contains(&target.server.0));
    theirs.all(|target| map.is_lost(target.id))
}

/// Containers with their last steps.
fn steps(client: &Client) -> Result<Vec<(String, u64)>, ClientError> {
    Ok(client.container_list()?.into_iter().map(|info| (info.name, info.step.0)).collect())
}

fn words(missing: &[(u32, String)], servers: u32, containers: &[(String, u64)]) -> String {
    let named: Vec<String> = missing
        .iter()
        .map(|(server, host)| if host.is_empty() { server.to_string() } else { format!("{server} (on {host})") })
        .collect();
    let hosts: BTreeSet<&str> = missing.iter().map(|(_, host)| host.as_str()).filter(|host| !host.is_empty()).collect();
    let nodes = hosts.into_iter().collect::<Vec<_>>().join(",");
    let held: Vec<String> = containers.iter().map(|(name, step)| format!("{name} at step {step}")).collect();
    format!(
        "DEGRADED: {} of {} missing here: {}. Their share of each file cannot be read or written, and nothing of it is lost: it \
         comes back in a job with {}. What can be read: names and files, or parts of them, on the other servers; `talea ls -l` \
         marks what cannot ({})",
        missing.len(),
        count(servers.into(), "server"),
        named.join(", "),
        if nodes.is_empty() { "their nodes".to_owned() } else { format!("--nodelist={nodes} beside these nodes") },
        if held.is_empty() { "there is no container".to_owned() } else { held.join(", ") }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_missing_and_how_it_comes_back() {
        let text = words(&[(1, "n2".into()), (3, "n4".into())], 4, &[("run".into(), 7)]);
        for word in ["2 of 4 servers", "1 (on n2), 3 (on n4)", "--nodelist=n2,n4", "run at step 7"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(words(&[(0, String::new())], 2, &[]).contains("their nodes"));
    }
}
