use crate::{scenario::{Scenario, settings}, shop::story};
use projections::{ProjectorSettings, ReadModel, rebuild};
use std::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn throughput() {
    let orders: usize = std::env::var("ORDERS").ok().and_then(|it| it.parse().ok()).unwrap_or(20_000);
    let mut scenario = Scenario::new(12).await;
    let (story, _) = story(99, orders);
    scenario.scribe.write(&story, 64).await;
    let n = scenario.scribe.written.len();
    println!("{n} events");
    for part in 0..1 {
        let _ = part;
        let before: f64 = { let stat = std::fs::read_to_string("/proc/self/stat").unwrap(); let f: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect(); (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0 };
        let begun = Instant::now();
        let projector = scenario.projector(ProjectorSettings {
            models: std::env::var("MODELS").map(|it| it.split(",").map(|it| it.parse().unwrap()).collect()).unwrap_or(ReadModel::ALL.to_vec()),
            groups: std::env::var("NGROUPS").ok().and_then(|it| it.parse().ok()).unwrap_or(4),
            max_events: std::env::var("MAX").ok().and_then(|it| it.parse().ok()).unwrap_or(5000),
            ..settings() }).await;
        let models = scenario.models(); for model in std::env::var("MODELS").map(|it| it.split(',').map(|it| it.parse().unwrap()).collect()).unwrap_or(ReadModel::ALL.to_vec()) { for p in 0..12 { models.wait_for_end(model, events::Partition(p), crate::scenario::PATIENCE).await.unwrap(); } }
        let took = begun.elapsed();
        let pids: Vec<i32> = sqlx::query_scalar("select pid from pg_stat_activity where datname = current_database() and application_name = 'orderlog projector'").fetch_all(&scenario.pool).await.unwrap();
        let cpu = |pid: String| -> f64 { let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap(); let f: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect(); (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0 };
        let pg: f64 = pids.iter().map(|pid| cpu(pid.to_string())).sum();
        println!("cpu: postgres {pg:.2} s = {:.1} us/event", pg * 1e6 / n as f64);
        println!("cpu: process (with making of the story) {:.2} s, before {before:.2}", cpu("self".into()));
        println!("project: {:.0} events/s ({took:?})", n as f64 / took.as_secs_f64());
        if std::env::var("REBUILD").is_ok() { for model in ReadModel::ALL {
            let begun = Instant::now();
            rebuild::request(&scenario.pool, model).await.unwrap();
            loop {
                let status = rebuild::status(&scenario.pool, &*scenario.log).await.unwrap();
                if status.iter().any(|it| it.model == model && it.version == 2 && it.serving) { break; }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            let took = begun.elapsed();
            println!("rebuild {model}: {:.0} events/s ({took:?})", n as f64 / took.as_secs_f64());
        }
        }
        projector.stop().await;
    }
}
