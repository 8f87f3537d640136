//! Who passes the log on to whom: a tree over the servers of the pool map, with the leader at its root.
//!
//! A pure function of map, leader and server, so that all agree without a word. That they may know different maps for a moment
//! does no harm: whoever gets nothing from where it follows follows the leader itself. Must never know connections or time.

use talea_model::{PoolMap, ServerId, TargetState};

/// How the log spreads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FanOut {
    /// Up to so many servers follow the leader itself.
    pub direct: usize,
    /// Of more, each passes the log on to so many others.
    pub width: usize,
}

impl Default for FanOut {
    fn default() -> Self {
        FanOut { direct: 16, width: 8 }
    }
}

impl FanOut {
    /// Whether servers of this map follow through others.
    pub(super) fn is_tree(&self, map: &PoolMap) -> bool {
        map.servers.len() > self.direct + 1
    }

    /// The servers between the leader and a server that the map does not say to be down, the nearest to that server first; none
    /// if it follows the leader itself. Who loses the one that it follows through goes to the next: the others stay where they
    /// are, whoever is lost.
    pub(super) fn path(&self, map: &PoolMap, leader: ServerId, server: ServerId) -> Vec<ServerId> {
        let place = |id: ServerId| map.servers.iter().position(|known| known.id == id);
        let (Some(root), Some(own)) = (place(leader), place(server)) else { return Vec::new() };
        if !self.is_tree(map) || own == root {
            return Vec::new();
        }
        // The leader comes first, all others in their order.
        let number = |at: usize| if at < root { at + 1 } else { at };
        let at = |number: usize| if number <= root { number - 1 } else { number };
        let above = |number: usize| (number - 1) / self.width.max(1);
        let numbers = std::iter::successors(Some(above(number(own))), |number| (*number > 0).then(|| above(*number)));
        let servers = numbers.take_while(|number| *number > 0).map(|number| map.servers[at(number)].id);
        servers.filter(|id| !is_down(map, *id)).collect()
    }
}

/// Whether all targets of a server are down.
fn is_down(map: &PoolMap, server: ServerId) -> bool {
    let mut targets = map.targets.iter().filter(|target| target.server == server).peekable();
    targets.peek().is_some() && targets.all(|target| target.state == TargetState::Down)
}

#[cfg(test)]
mod tests {
    use super::*;
    use talea_model::{MapVersion, PoolId, ServerInfo, Stamp, TargetId, TargetInfo};

    fn map(servers: u32, down: &[u32]) -> PoolMap {
        let info = |id| ServerInfo { id: ServerId(id), host: String::new(), node: String::new(), control: Vec::new() };
        let state = |id| if down.contains(&id) { TargetState::Down } else { TargetState::Up };
        let target = |id| TargetInfo {
            id: TargetId(id),
            server: ServerId(id),
            state: state(id),
            addresses: Vec::new(),
            capacity_bytes: 1,
            incarnation: 1,
        };
        PoolMap {
            pool: PoolId(1),
            version: MapVersion(1),
            stamp: Stamp::ZERO,
            servers: (0..servers).map(info).collect(),
            targets: (0..servers).map(target).collect(),
        }
    }

    fn path(fan_out: FanOut, map: &PoolMap, leader: u32, server: u32) -> Vec<u32> {
        fan_out.path(map, ServerId(leader), ServerId(server)).iter().map(|id| id.0).collect()
    }

    #[test]
    fn few_servers_follow_the_leader_itself() {
        let few = FanOut::default();
        assert!((0..17).all(|server| path(few, &map(17, &[]), 3, server).is_empty()));
        assert!((0..18).any(|server| !path(few, &map(18, &[]), 3, server).is_empty()));
        assert!(path(few, &map(18, &[]), 99, 4).is_empty() && path(few, &map(18, &[]), 3, 99).is_empty());
    }

    #[test]
    fn nobody_passes_the_log_on_to_more_than_the_width_and_all_paths_are_short() {
        for (servers, leader) in [(18, 0), (18, 17), (100, 50), (1000, 0), (1000, 777)] {
            let (fan_out, map) = (FanOut::default(), map(servers, &[]));
            let mut children = std::collections::BTreeMap::<u32, usize>::new();
            for server in (0..servers).filter(|server| *server != leader) {
                let all = path(fan_out, &map, leader, server);
                assert!(all.len() <= 3 && !all.contains(&leader) && !all.contains(&server), "{server}: {all:?}");
                *children.entry(all.first().copied().unwrap_or(leader)).or_default() += 1;
                // The rest of it is the path of the first.
                if let Some(first) = all.first() {
                    assert_eq!(all[1..], path(fan_out, &map, leader, *first)[..]);
                }
            }
            assert!(children.values().all(|count| *count <= fan_out.width), "{children:?}");
        }
    }

    #[test]
    fn who_is_down_is_passed_over_and_the_others_stay_where_they_are() {
        let fan_out = FanOut { direct: 0, width: 2 };
        let whole = map(15, &[]);
        assert_eq!(path(fan_out, &whole, 0, 14), [6, 2]);
        assert_eq!(path(fan_out, &map(15, &[6]), 0, 14), [2]);
        assert_eq!(path(fan_out, &map(15, &[2, 6]), 0, 14), [0; 0]);
        assert_eq!(path(fan_out, &map(15, &[6]), 0, 12), path(fan_out, &whole, 0, 12));
        let chain = FanOut { direct: 0, width: 1 };
        assert_eq!(path(chain, &map(5, &[]), 2, 4), [3, 1, 0]);
    }
}
