//! Hours of traffic in seconds: a real host on real engines lives through a seeded schedule of customers, people, other apps
//! and trouble, and afterwards everything has to add up.
//!
//! # Time
//! Three clocks are put ahead together: the host's ([`Clock`]), Postgres' (`now()` and `clock_timestamp()` of the test's database
//! are functions of ours, found before the built-in ones) and the simulated platform's. They move only while nothing is in
//! flight, to the next thing that happens or falls due. So a pause of fifteen minutes is over at once, and no rule can tell.
//!
//! # The seed
//! `FRONTDESK_SIMULATE_SEED` and `FRONTDESK_SIMULATE_HOURS` choose a run; the seed is printed, and gives the same schedule again. What
//! the host makes of it depends on its own concurrency, as in life.

mod check;
mod schedule;
mod world;

use rand::Rng;

use schedule::schedule;
use world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_hours_of_traffic_and_trouble_everything_adds_up() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = number("FRONTDESK_SIMULATE_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    let hours = number("FRONTDESK_SIMULATE_HOURS").unwrap_or(2);
    println!("FRONTDESK_SIMULATE_SEED={seed} FRONTDESK_SIMULATE_HOURS={hours} repeats this schedule");
    let begin = std::time::Instant::now();
    let steps = schedule(seed, i64::try_from(hours).unwrap());
    let mut world = World::new(seed).await;
    let count = steps.len();
    world.live_through(steps).await;
    world.come_to_rest().await;
    let report = check::check(&world).await;
    println!("{count} steps of {hours} h in {:.1} s; {report}", begin.elapsed().as_secs_f64());
}
