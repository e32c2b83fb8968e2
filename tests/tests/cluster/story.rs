//! Telling stories one after the other, and what is printed about them.

use std::{
    error::Error,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
};

use krb_tests::cluster::{Cluster, wait};

/// What a story comes to: nothing, or why it could not be told. It may also panic.
pub type Told = Result<(), Box<dyn Error>>;

/// One story.
pub struct Story {
    /// A sentence.
    pub name: &'static str,
    /// The story itself.
    pub tell: fn(&Cluster) -> Told,
}

/// Tells the stories whose names contain one of `filters` (all when there is none), prints what
/// cargo's own runner would print, and says whether all went well.
pub fn tell(stories: &[Story], cluster: &Cluster, filters: &[String]) -> bool {
    let filters: Vec<_> = filters.iter().filter(|filter| !filter.starts_with('-')).collect();
    let wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(*filter));
    let started = wait::monotonic();
    let (chosen, left_out): (Vec<_>, Vec<_>) = stories.iter().partition(|story| wanted(story.name));
    println!("\nrunning {} tests", chosen.len());
    let failed = chosen.iter().filter(|story| !tell_one(story, cluster)).count();
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

fn tell_one(story: &Story, cluster: &Cluster) -> bool {
    let started = wait::monotonic();
    let outcome = catch_unwind(AssertUnwindSafe(|| (story.tell)(cluster)));
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
    look_around(cluster);
    false
}

/// What somebody who was not there needs to understand a failure.
fn look_around(cluster: &Cluster) {
    let kubectl = cluster.kubectl();
    let asked: [&[&str]; 2] = [
        &["get", "pods", "--all-namespaces", "-o", "wide"],
        &["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"],
    ];
    for arguments in asked {
        let said = kubectl.run(arguments).unwrap_or_else(|error| error.to_string());
        println!("---- kubectl {}\n{said}", arguments.join(" "));
    }
    let log = fs::read_to_string(cluster.node("n1").kubelet_log()).unwrap_or_default();
    let of_interest: Vec<_> =
        log.lines().filter(|line| line.contains("~") || line.starts_with('E')).collect();
    println!("---- the end of kubelet's log");
    of_interest.iter().rev().take(25).rev().for_each(|line| println!("{line}"));
}
