//! Telling stories one after the other, and what is printed about them.

use std::{
    cell::OnceCell,
    error::Error,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use krb_tests::cluster::{Cluster, NODES, wait};
use serde_json::Value;

use crate::field::Field;

/// What a story comes to: nothing, or why it could not be told. It may also panic.
pub type Told = Result<(), Box<dyn Error>>;

/// A pause between two questions to the broker.
const LOOK: Duration = Duration::from_secs(2);

/// What a story must be able to do to the cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Needs {
    /// What everybody can who may use `kubectl`.
    Nothing,
    /// Commands on the machines themselves: their mounts, their kubelet.
    Machines,
    /// Power cuts, pulled cables.
    Power,
    /// Stopping and starting the API server.
    ApiControl,
}

impl Needs {
    fn in_words(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Machines => "root on the machines",
            Self::Power => "machines whose power and cables can be cut",
            Self::ApiControl => "an API server that can be stopped",
        }
    }
}

/// One story.
pub struct Story {
    /// A sentence.
    pub name: &'static str,
    /// What it must be able to do to the cluster.
    pub needs: Needs,
    /// Whether it is left out unless everything is asked for.
    pub is_long: bool,
    /// The story itself.
    pub tell: fn(&World<'_>) -> Told,
}

impl Story {
    /// One that needs nothing.
    pub const fn new(name: &'static str, tell: fn(&World<'_>) -> Told) -> Self {
        Self { name, needs: Needs::Nothing, is_long: false, tell }
    }

    /// The same with a need.
    pub const fn needing(self, needs: Needs) -> Self {
        Self { needs, ..self }
    }

    /// The same, told only when everything is asked for.
    pub const fn long(self) -> Self {
        Self { is_long: true, ..self }
    }
}

/// The story that a function of this module tells: its name is the function's.
macro_rules! story {
    ($tell:ident) => {
        $crate::story::Story::new(stringify!($tell), $tell)
    };
}
pub(crate) use story;

/// Does what may fail, also by a panic, before something that must be undone whatever came of it.
pub fn attempt<T>(tell: impl FnOnce() -> Result<T, Box<dyn Error>>) -> Result<T, Box<dyn Error>> {
    catch_unwind(AssertUnwindSafe(tell)).unwrap_or_else(|_| Err("panicked, see above".into()))
}

/// Asks the broker until it is so; not more often than it hurts.
pub fn wait_for(
    what: &str,
    limit: Duration,
    mut is_so: impl FnMut() -> Result<bool, Box<dyn Error>>,
) -> Told {
    let end = wait::monotonic() + limit;
    loop {
        let last = is_so();
        if matches!(last, Ok(true)) {
            return Ok(());
        }
        if wait::monotonic() > end {
            let why = last.err().map(|error| error.to_string()).unwrap_or_default();
            return Err(
                format!("waiting for {what}: not within {} s {why}", limit.as_secs()).into()
            );
        }
        wait::pause(LOOK);
    }
}

/// A value's text; empty where it is none.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What the stories share.
pub struct World<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    field: OnceCell<Result<Field<'a>, String>>,
}

impl<'a> World<'a> {
    /// A cluster with nothing on it yet.
    pub fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, field: OnceCell::new() }
    }

    /// All that an operator installs, prepared for the first story that asks.
    pub fn field(&self) -> Result<&Field<'a>, String> {
        let prepare = || {
            let started = wait::monotonic();
            let field = Field::prepare(self.cluster).map_err(|error| error.to_string());
            let took = (wait::monotonic() - started).as_secs();
            println!("cluster-test: installed after {took} s more");
            field
        };
        self.field.get_or_init(prepare).as_ref().map_err(Clone::clone)
    }

    /// Whether stories can do such things to this cluster.
    fn offers(&self, needs: Needs) -> bool {
        needs == Needs::Nothing || self.cluster.is_ours()
    }
}

/// Which stories to tell.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Parts of names; none: all.
    pub filters: Vec<String>,
    /// The long ones, too. One that a filter names by its whole name is told anyway.
    pub everything: bool,
}

impl Choice {
    fn has(&self, story: &Story) -> bool {
        let named = self.filters.iter().any(|filter| filter == story.name);
        let fits = self.filters.is_empty()
            || self.filters.iter().any(|filter| story.name.contains(filter.as_str()));
        named || (fits && (self.everything || !story.is_long))
    }
}

/// Tells the chosen stories, prints what cargo's own runner would print, names those that this
/// cluster can't be told, and says whether all went well.
pub fn tell<'s>(
    stories: impl Iterator<Item = &'s Story>,
    world: &World<'_>,
    choice: &Choice,
) -> bool {
    let started = wait::monotonic();
    let (chosen, left_out): (Vec<_>, Vec<_>) = stories.partition(|story| choice.has(story));
    let (able, unable): (Vec<_>, Vec<_>) =
        chosen.into_iter().partition(|story| world.offers(story.needs));
    println!("\nrunning {} tests", able.len());
    let failed = able.iter().filter(|story| !tell_one(story, world)).count();
    for story in &unable {
        let needs = story.needs.in_words();
        println!("cluster-test: story {} NOT RUN (needs {needs})", story.name);
    }
    println!(
        "\ntest result: {}. {} passed; {failed} failed; {} ignored; 0 measured; {} filtered out; \
         finished in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        able.len() - failed,
        unable.len(),
        left_out.len(),
        (wait::monotonic() - started).as_secs_f64(),
    );
    failed == 0
}

fn tell_one(story: &Story, world: &World<'_>) -> bool {
    let started = wait::monotonic();
    let outcome = catch_unwind(AssertUnwindSafe(|| (story.tell)(world)));
    let took = (wait::monotonic() - started).as_secs_f64();
    let why = match outcome {
        Ok(Ok(())) => {
            println!("test {} ... ok ({took:.1} s)", story.name);
            return true;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "panicked, see above".to_owned(),
    };
    println!("test {} ... FAILED ({took:.1} s)\n{why}", story.name);
    look_around(world);
    false
}

/// What somebody who was not there needs to understand a failure.
fn look_around(world: &World<'_>) {
    let kubectl = world.cluster.kubectl();
    let asked: [&[&str]; 2] = [
        &["get", "pods", "--all-namespaces", "-o", "wide"],
        &["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"],
    ];
    for arguments in asked {
        let said = kubectl.run(arguments).unwrap_or_else(|error| error.to_string());
        println!("---- kubectl {}\n{said}", arguments.join(" "));
    }
    for node in NODES {
        println!("---- the end of kubelet's log on {node}\n{}", kubelet_log(world.cluster, node));
    }
    if let Some(Ok(field)) = world.field.get() {
        for part in ["krb-broker", "krb-broker-admission", "krb-node-agent"] {
            println!("---- the end of the log of {part}\n{}", field.log(part));
        }
    }
}

/// The last lines about volumes, and the last errors.
fn kubelet_log(cluster: &Cluster, node: &str) -> String {
    let log = fs::read_to_string(cluster.node(node).kubelet_log()).unwrap_or_default();
    let of_interest =
        |line: &&str| (line.contains('~') || line.starts_with('E')) && !line.contains("httplog");
    end_of(&log.lines().filter(of_interest).collect::<Vec<_>>().join("\n"))
}

/// The last lines of a log.
fn end_of(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
