//! Reading one's own writes, and being sure that something does not exist.

use crate::{
    scenario::{PATIENCE, Scenario, settings},
    shop::story,
};
use events::{LogPosition, Partition};
use projections::{Behind, ReadModel, ReadModels};
use std::time::Duration;

const SOON: Duration = Duration::from_millis(50);

/// The read models with and without a projector in the process.
fn both(scenario: &Scenario) -> [ReadModels; 2] {
    [scenario.models(), scenario.models_elsewhere()]
}

fn last_positions(scenario: &Scenario) -> LogPosition {
    scenario.scribe.written.iter().map(|(position, _)| *position).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_waited_for_and_then_readable() {
    let mut scenario = Scenario::new(3).await;
    let (story, cast) = story(5, 20);
    scenario.scribe.write(&story, 4).await;
    let token = last_positions(&scenario);
    for models in both(&scenario) {
        let late = models.wait_for(ReadModel::Orders, &token, SOON).await;
        assert!(matches!(late, Err(Behind::Late(ReadModel::Orders))));
        assert!(models.position(ReadModel::Orders).await.unwrap().is_empty());
    }
    let projector = scenario.projector(settings()).await;
    for models in both(&scenario) {
        models.wait_for(ReadModel::Orders, &token, PATIENCE).await.unwrap();
        assert!(models.order(cast.orders[7], None).await.unwrap().is_some());
        assert_eq!(models.position(ReadModel::Orders).await.unwrap(), token);
        let beyond: LogPosition = "0:1000000".parse().unwrap();
        let late = models.wait_for(ReadModel::Orders, &beyond, SOON).await;
        assert!(matches!(late, Err(Behind::Late(_))));
    }
    projector.stop().await;
    // Without a projector the process reads the positions from the database.
    let models = scenario.models();
    models.wait_for(ReadModel::Orders, &token, SOON).await.unwrap();
}

/// After the last event there are records without events and gaps. The end is still reached, and
/// tokens name events only.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_log_is_reached_over_gaps() {
    let mut scenario = Scenario::new(2).await;
    scenario.scribe.write(&story(6, 10).0, 4).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    let token = last_positions(&scenario);
    for _ in 0..3 {
        for partition in [Partition(0), Partition(1)] {
            scenario.scribe.beat(partition).await;
            for models in both(&scenario) {
                models.wait_for_end(ReadModel::History, partition, PATIENCE).await.unwrap();
                assert_eq!(models.position(ReadModel::History).await.unwrap(), token);
            }
        }
    }
    projector.stop().await;
}
