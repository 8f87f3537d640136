//! Placement: which targets hold an object, computed by everyone from the pool map; there is no central table.
//!
//! Groups are ordered by rendezvous hashing (Thaler and Ravishankar 1998), so that a changed map moves only the groups that
//! it has to. Placement counts all targets of the map, also those that are down or draining: where data lies must not depend on what
//! is up just now. Those that are new count when they are up.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::class::ALL_GROUPS;
use crate::{ObjectClass, Oid, PoolMap, SessionId, TargetId, TargetState};

/// The redundancy groups of one object, in order; each has [`ObjectClass::group_width`] targets, the first being the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    targets: Vec<TargetId>,
    width: usize,
    oid: Oid,
}

impl Layout {
    /// Layout of an object, or `None` if its id names no class or the pool is too small for one group.
    pub fn of(oid: Oid, map: &PoolMap) -> Option<Self> {
        let class: ObjectClass = oid.class()?;
        let width = class.group_width();
        let holders = || map.targets.iter().filter(|target| target.state != TargetState::New).map(|target| target.id);
        let possible = holders().count() / width;
        let groups = if class.groups == ALL_GROUPS { possible } else { possible.min(class.groups as usize) };
        if groups == 0 {
            return None;
        }
        let seed = xxh3_64_with_seed(&oid.0.to_le_bytes(), 0x7a1e_a001);
        let mut ranked: Vec<(u64, TargetId)> =
            holders().map(|id| (xxh3_64_with_seed(&id.0.to_le_bytes(), seed), id)).collect();
        ranked.sort_unstable_by(|a, b| b.cmp(a));
        let targets = ranked[..groups * width].iter().map(|(_, id)| *id).collect();
        Some(Self { targets, width, oid })
    }

    /// Number of groups.
    pub fn groups(&self) -> usize {
        self.targets.len() / self.width
    }

    /// The group that holds a dkey. Integer dkeys (eight bytes: chunk numbers) go round robin, so that a file's consecutive
    /// chunks use all groups evenly; others are hashed.
    pub fn group_of(&self, dkey: &[u8]) -> usize {
        let number = match <[u8; 8]>::try_from(dkey) {
            Ok(bytes) => u64::from_be_bytes(bytes).wrapping_add(self.oid.0 as u64),
            Err(_) => xxh3_64_with_seed(dkey, 0x7a1e_a002),
        };
        (number % self.groups() as u64) as usize
    }

    /// Members of a group, the leader first.
    pub fn group(&self, group: usize) -> &[TargetId] {
        &self.targets[group * self.width..(group + 1) * self.width]
    }

    /// Leader of the group that holds a dkey.
    pub fn leader_of(&self, dkey: &[u8]) -> TargetId {
        self.group(self.group_of(dkey))[0]
    }

    /// All targets of the object.
    pub fn targets(&self) -> &[TargetId] {
        &self.targets
    }
}

/// The name under which a target remembers a session's updates of one redundancy group (rule 14). Updates of several groups reach
/// a member through several leaders, in no common order: what a session says in one of what it has seen answered holds
/// for that one.
pub fn session_of_group(session: SessionId, group: &[TargetId]) -> SessionId {
    if session == SessionId(0) {
        return session;
    }
    let bytes: Vec<u8> = group.iter().flat_map(|target| target.0.to_le_bytes()).collect();
    SessionId(xxh3_64_with_seed(&bytes, session.0).max(1))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Key, MapVersion, PoolId, ServerId, Stamp, TargetInfo};

    pub(crate) fn map(targets: u32) -> PoolMap {
        let target = |id| TargetInfo {
            id: TargetId(id),
            server: ServerId(id / 2),
            state: TargetState::Up,
            addresses: vec![],
            capacity_bytes: 0,
            incarnation: 0,
        };
        PoolMap {
            pool: PoolId(1),
            version: MapVersion(1),
            stamp: Stamp::ZERO,
            servers: vec![],
            targets: (0..targets).map(target).collect(),
        }
    }

    #[test]
    fn consecutive_chunks_use_all_targets() {
        let layout = Layout::of(Oid::new(ObjectClass::SX, 77), &map(4)).unwrap();
        let mut used: Vec<_> = (10..14u64).map(|n| layout.leader_of(&Key::from_u64(n))).collect();
        used.sort();
        assert_eq!(used, (0..4).map(TargetId).collect::<Vec<_>>());
    }

    #[test]
    fn objects_spread_evenly_and_growth_moves_little() {
        let (small, large) = (map(8), map(9));
        let leader = |map: &PoolMap, n| Layout::of(Oid::new(ObjectClass::S1, n), map).unwrap().targets()[0];
        let mut counts = [0u32; 8];
        let mut moved = 0;
        for n in 0..8000 {
            counts[leader(&small, n).0 as usize] += 1;
            if leader(&small, n) != leader(&large, n) {
                assert_eq!(leader(&large, n), TargetId(8), "only the new target may gain");
                moved += 1;
            }
        }
        assert!(counts.iter().all(|c| (800..1200).contains(c)), "{counts:?}");
        assert!((600..1200).contains(&moved), "{moved}");
    }

    #[test]
    fn only_new_targets_hold_nothing() {
        let (small, mut large) = (map(8), map(9));
        let layouts = |map: &PoolMap| -> Vec<Layout> {
            let classes = [ObjectClass::S1, ObjectClass::SX];
            let oids = (0..200).flat_map(|number| classes.map(|class| Oid::new(class, number)));
            oids.map(|oid| Layout::of(oid, map).unwrap()).collect()
        };
        large.targets[8].state = TargetState::New;
        assert_eq!(layouts(&large), layouts(&small));
        for state in [TargetState::Down, TargetState::Draining] {
            let all_up = map(9);
            large.targets[8].state = state;
            assert_eq!(layouts(&large), layouts(&all_up), "what lies there stays there");
        }
    }

    #[test]
    fn too_small_a_pool_has_no_layout() {
        assert!(Layout::of(Oid::new("RP_3G1".parse().unwrap(), 1), &map(2)).is_none());
        assert!(Layout::of(Oid(5), &map(2)).is_none(), "no class");
    }
}
