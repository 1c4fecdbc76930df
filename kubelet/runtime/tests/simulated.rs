//! The simulated runtime against the contract.

use kubelet_runtime::{
    ContainerView, PodIdentity, PodRuntime,
    simulated::{SimulatedOptions, SimulatedRuntime},
    testing::{self, Harness},
};

struct Simulated(SimulatedRuntime);

impl Harness for Simulated {
    fn runtime(&self) -> &dyn PodRuntime {
        &self.0
    }

    async fn kill(&self, pod: &PodIdentity, container: &ContainerView) {
        self.0.finish(&pod.uid, &container.name, 137).expect("the container must be there");
    }
}

#[tokio::test(start_paused = true)]
async fn conforms() {
    testing::conformance(&Simulated(SimulatedRuntime::new(SimulatedOptions::default()))).await;
}
