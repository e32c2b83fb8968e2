//! Telling stories one after the other, and what is printed about them.

use std::{
    cell::OnceCell,
    error::Error,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
};

use krb_tests::cluster::{Cluster, wait};

use crate::field::{self, Field};

/// What a story comes to: nothing, or why it could not be told. It may also panic.
pub type Told = Result<(), Box<dyn Error>>;

/// One story.
pub struct Story {
    /// A sentence.
    pub name: &'static str,
    /// The story itself.
    pub tell: fn(&World<'_>) -> Told,
}

/// What the stories share.
pub struct World<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    field: OnceCell<Result<Field, String>>,
}

impl<'a> World<'a> {
    /// A cluster with nothing on it yet.
    pub fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, field: OnceCell::new() }
    }

    /// The servers and the agent, prepared for the first story that asks.
    pub fn field(&self) -> Result<&Field, String> {
        let prepare = || Field::prepare(self.cluster).map_err(|error| error.to_string());
        self.field.get_or_init(prepare).as_ref().map_err(Clone::clone)
    }
}

/// Tells the stories whose names contain one of `filters` (all when there is none), prints what
/// cargo's own runner would print, and says whether all went well.
pub fn tell(stories: &[Story], world: &World<'_>, filters: &[String]) -> bool {
    let filters: Vec<_> = filters.iter().filter(|filter| !filter.starts_with('-')).collect();
    let wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(*filter));
    let started = wait::monotonic();
    let (chosen, left_out): (Vec<_>, Vec<_>) = stories.iter().partition(|story| wanted(story.name));
    println!("\nrunning {} tests", chosen.len());
    let failed = chosen.iter().filter(|story| !tell_one(story, world)).count();
    println!(
        "\ntest result: {}. {} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out; \
         finished in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        chosen.len() - failed,
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
    println!("---- the end of kubelet's log\n{}", kubelet_log(world.cluster));
    if let Some(Ok(field)) = world.field.get() {
        println!("---- the cluster as the broker sees it: {}", field.servers.objects.failure());
        println!("---- the end of the broker's log\n{}", end_of(&field.servers.broker.log()));
        println!("---- the end of the agent's log\n{}", field::agent_log(world.cluster));
    }
}

/// The last lines about volumes, and the last errors.
fn kubelet_log(cluster: &Cluster) -> String {
    let log = fs::read_to_string(cluster.node("n1").kubelet_log()).unwrap_or_default();
    let of_interest =
        |line: &&str| (line.contains('~') || line.starts_with('E')) && !line.contains("httplog");
    end_of(&log.lines().filter(of_interest).collect::<Vec<_>>().join("\n"))
}

/// The last lines of a log.
fn end_of(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
