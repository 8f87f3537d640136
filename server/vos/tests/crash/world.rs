//! A store on recorded media beside one in memory to which the same is done, and the judgement of what a crash leaves.

use talea_tier::{Media, Medium, Playback, RamMedium, Recorder, Step, Survives, Torn};
use talea_vos::{Plant, Store, StoreError, StoreOptions, inspect};

use super::operation::{Journal, Operation, Question, Random};

/// Which tiers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One, of lines and fences.
    Pmem,
    /// One, of blocks and flushes.
    Nvme,
    /// The log on lines, bulk on blocks.
    Two,
}

type Contents = Vec<(Vec<u8>, Torn)>;
type Seen = Vec<(Question, u64)>;

impl Layout {
    fn empty(self) -> Contents {
        match self {
            Layout::Pmem => vec![(vec![0; 320 << 10], Torn::Lines)],
            Layout::Nvme => vec![(vec![0; 320 << 10], Torn::Sectors)],
            Layout::Two => vec![(vec![0; 224 << 10], Torn::Lines), (vec![0; 160 << 10], Torn::Sectors)],
        }
    }

    fn media(self, recorder: &Recorder) -> Media {
        match self {
            Layout::Two => Media::two(Box::new(recorder.medium(0)), Box::new(recorder.medium(1))),
            _ => Media::one(Box::new(recorder.medium(0))),
        }
    }
}

/// Marks in the record: an operation begins, or all up to one are acknowledged.
const ACKNOWLEDGED: u64 = 1 << 32;

/// How much was begun and acknowledged at some instant.
#[derive(Clone, Copy, Default)]
struct Progress {
    begun: u64,
    acknowledged: u64,
}

/// A store under test, and all that is known of it.
pub(crate) struct World {
    layout: Layout,
    options: StoreOptions,
    /// What lay on the media when this record began.
    start: Contents,
    recorder: Recorder,
    store: Store,
    reference: Store,
    journal: Journal,
    operations: Vec<Operation>,
    /// What can be read after each number of operations.
    expected: Vec<Seen>,
    /// Operations that the media held at the start.
    inherited: u64,
    acknowledged: u64,
    time: u64,
}

fn options(plant: Plant, random: &mut Random) -> StoreOptions {
    let checkpoint_bytes = 2000 + random.below(20_000);
    StoreOptions { nonce: 77, segment_bytes: 16 << 10, checkpoint_bytes, plant, ..StoreOptions::default() }
}

fn reference() -> Store {
    let memory: Box<dyn Medium> = Box::new(RamMedium::new(64 << 20).unwrap());
    Store::open(memory, StoreOptions { nonce: 1, ..StoreOptions::default() }).unwrap().0
}

impl World {
    pub(crate) fn new(layout: Layout, plant: Plant, random: &mut Random) -> Self {
        Self::on(layout, options(plant, random), layout.empty(), Vec::new())
    }

    /// Goes on with what the media hold, which is these operations.
    fn on(layout: Layout, options: StoreOptions, start: Contents, operations: Vec<Operation>) -> Self {
        let recorder = Recorder::new(start.clone());
        let (store, _) = Store::open(layout.media(&recorder), options.clone()).unwrap();
        let (mut reference, mut journal) = (reference(), Journal::default());
        let mut expected = vec![journal.observe(&reference)];
        for (number, operation) in (1..).zip(&operations) {
            operation.apply(number, &mut reference).unwrap();
            journal.note(operation);
            expected.push(journal.observe(&reference));
        }
        let inherited = operations.len() as u64;
        let (acknowledged, time) = (inherited, 0);
        Self {
            layout,
            options,
            start,
            recorder,
            store,
            reference,
            journal,
            operations,
            expected,
            inherited,
            acknowledged,
            time,
        }
    }

    /// Does something.
    pub(crate) fn act(&mut self, random: &mut Random) {
        match random.below(16) {
            0..=8 => self.operate(random),
            9..=11 => self.flush(),
            12 if random.below(4) == 0 => {
                self.time += 1;
                self.store.lease_blocks(self.time + 3);
            }
            12 => {
                self.time += 2;
                self.store.end_leases(self.time);
            }
            _ => _ = self.store.background(1 + random.below(40) as usize).unwrap(),
        }
    }

    fn flush(&mut self) {
        self.store.flush().unwrap();
        self.acknowledged = self.operations.len() as u64;
        self.recorder.mark(ACKNOWLEDGED | self.acknowledged);
    }

    fn operate(&mut self, random: &mut Random) {
        let operation = self.journal.choose(random, self.acknowledged);
        let number = self.operations.len() as u64 + 1;
        self.recorder.mark(number);
        match operation.apply(number, &mut self.store) {
            Ok(()) => {}
            // Full is not broken: nothing of it is kept, and its number is used again.
            Err(StoreError::NoSpace { .. } | StoreError::RoomToCome { .. }) => {
                assert!(!matches!(operation, Operation::Follow(_)), "the pool's log must always find room");
                return;
            }
            // The reference must refuse it, too: an akey that holds something else, a value of another length.
            Err(error) => {
                let expected = operation.apply(number, &mut self.reference).unwrap_err();
                assert_eq!(error.to_string(), expected.to_string());
                return;
            }
        }
        operation.apply(number, &mut self.reference).unwrap();
        self.journal.note(&operation);
        self.operations.push(operation);
        self.expected.push(self.journal.observe(&self.reference));
    }

    /// Crashes at each step of the record. Gives the number of images, and a world that goes on from one of them.
    pub(crate) fn sweep(mut self, random: &mut Random) -> Result<(u64, World), String> {
        self.flush();
        compare(&self.journal.observe(&self.store), &self.expected[self.operations.len()])
            .map_err(|text| format!("without any crash, after {} operations: {text}", self.operations.len()))?;
        let steps = self.recorder.steps();
        let goes_on = random.below(steps.len() as u64);
        let mut playback = Playback::new(self.start.clone(), steps);
        let mut progress = Progress { begun: self.inherited, acknowledged: self.inherited };
        let (mut images, mut next) = (0, None);
        while let Some(step) = playback.advance() {
            match step {
                Step::Mark(mark) if mark & ACKNOWLEDGED != 0 => {
                    progress.acknowledged = progress.acknowledged.max(mark & (ACKNOWLEDGED - 1));
                }
                Step::Mark(number) => progress.begun = progress.begun.max(*number),
                Step::Write { .. } | Step::Fence { .. } => {}
            }
            let survives = match random.below(8) {
                0 => Survives::Nothing,
                1 => Survives::Everything,
                2 => Survives::Share(16),
                3 => Survives::Share(240),
                _ => Survives::Share(128),
            };
            let image = playback.image(survives, random.below(2) == 0, &mut || random.next());
            let failed = |text: String| format!("crash after step {}, {survives:?}: {text}", playback.position());
            let kept = (playback.position() as u64 > goes_on && next.is_none()).then(|| image.clone());
            let shown = std::env::var_os("TALEA_CRASH_SHOW").is_some().then(|| image.clone());
            let left = self.judge(image, progress).map_err(|text| {
                let image = shown.map(|image| self.show(image)).unwrap_or_default();
                failed(format!("{text}{image}"))
            })?;
            images += 1;
            if let Some(image) = kept {
                next = Some((image, left));
            }
        }
        let (image, left) = next.ok_or("nothing was recorded")?;
        let mut operations = self.operations;
        operations.truncate(left as usize);
        Ok((images, World::on(self.layout, self.options, image, operations)))
    }

    /// An image as `talead inspect` shows it.
    fn show(&self, image: Contents) -> String {
        let mut text = String::new();
        let recorder = Recorder::new(image);
        let result = inspect::inspect(&self.layout.media(&recorder), |found| text += &format!("\n{found:?}"));
        format!("{text}\n{result:?}")
    }

    /// Recovers a store from an image: it must hold a beginning of the operations, with all that was acknowledged, and read
    /// exactly as a store to which just these were done.
    fn judge(&self, image: Contents, progress: Progress) -> Result<u64, String> {
        let options = StoreOptions { plant: Plant::None, ..self.options.clone() };
        let recorder = Recorder::new(image);
        let (store, recovered) =
            Store::open(self.layout.media(&recorder), options).map_err(|error| format!("it does not open: {error}"))?;
        if recovered.lost {
            return Err("it says that durable records are lost".to_owned());
        }
        let done = |number: u64| self.operations[number as usize - 1].is_done(number, &store);
        let all = self.operations.len() as u64;
        let left = (1..=all).take_while(|number| done(*number)).count() as u64;
        if let Some(stray) = (left + 1..=all).find(|number| done(*number)) {
            return Err(format!("operation {stray} is there and {} is not", left + 1));
        }
        let Progress { begun, acknowledged } = progress;
        if left < acknowledged {
            return Err(format!("I4: {acknowledged} operations were acknowledged and {left} are left"));
        }
        if left > begun {
            return Err(format!("{left} operations are there and {begun} were begun"));
        }
        let mut journal = Journal::default();
        self.operations[..left as usize].iter().for_each(|operation| journal.note(operation));
        let seen = journal.observe(&store);
        compare(&seen, &self.expected[left as usize])
            .map_err(|text| format!("I1, I2: after {left} operations {text}"))?;
        Ok(left)
    }
}

/// Says what is read differently.
fn compare(seen: &Seen, expected: &Seen) -> Result<(), String> {
    match seen.iter().zip(expected).find(|(seen, expected)| seen != expected) {
        Some((seen, expected)) if seen.0 == expected.0 => Err(format!("{:?} reads differently", seen.0)),
        Some((seen, expected)) => Err(format!("{:?} can be read instead of {:?}", seen.0, expected.0)),
        None if seen.len() != expected.len() => Err("other views can be read".to_owned()),
        None => Ok(()),
    }
}
