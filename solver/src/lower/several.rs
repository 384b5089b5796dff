//! Lowering for several platforms: the whole Dockerfile once for each, in one graph. What does not depend on the target's platform gives
//! equal ops, which are one vertex, so that a stage on `$BUILDPLATFORM` runs once (R9.8).

use super::{ImageResolver, LowerOptions, Lowered, Plan, lower};
use crate::graph::{Graph, VertexId};
use crate::lock::{Key, Lockable};
use oci::ImageConfig;
use parser::ast::Dockerfile;
use parser::diagnostic::Diagnostic;
use std::collections::BTreeMap;

/// What to run for all platforms.
pub struct Plans {
    pub graph: Graph,
    /// In the order in which the platforms were given (R9.7).
    pub targets: Vec<Target>,
}

/// The image of one platform, as in [`Plan`].
pub struct Target {
    pub result: VertexId,
    pub config: ImageConfig,
    pub base_history: usize,
    pub epoch: Option<i64>,
}

/// As [`Lowered`], for all platforms.
pub struct LoweredAll {
    /// The errors are those of the first platform that has any: the others mostly have the same.
    pub plans: Result<Plans, Vec<Diagnostic>>,
    /// Each once, however many platforms it holds for.
    pub warnings: Vec<Diagnostic>,
    pub warnings_are_errors: bool,
    /// Of all platforms.
    pub lockable: BTreeMap<Key, Lockable>,
}

/// Lowers `dockerfile` once for each of `options`, which differ in the platform.
pub async fn lower_all<R: ImageResolver>(
    dockerfile: &Dockerfile,
    options: &[LowerOptions],
    resolver: &R,
) -> LoweredAll {
    let lowered = options.iter().map(|options| lower(dockerfile, options, resolver));
    let lowered = futures_util::future::join_all(lowered).await;
    let mut plans = Ok(Plans { graph: Graph::default(), targets: Vec::with_capacity(options.len()) });
    let mut warnings: Vec<Diagnostic> = Vec::new();
    let (mut are_errors, mut lockable) = (false, BTreeMap::new());
    for Lowered { plan, warnings: found, warnings_are_errors, lockable: taken, .. } in lowered {
        lockable.extend(taken);
        are_errors |= warnings_are_errors;
        for warning in found {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        match (&mut plans, plan) {
            (Ok(plans), Ok(plan)) => plans.add(plan),
            (Ok(_), Err(errors)) => plans = Err(errors),
            (Err(_), _) => {}
        }
    }
    LoweredAll { plans, warnings, warnings_are_errors: are_errors, lockable }
}

impl Plans {
    fn add(&mut self, plan: Plan) {
        let Plan { graph, result, config, base_history, epoch, .. } = plan;
        let result = self.graph.merge(&graph, result);
        self.targets.push(Target { result, config, base_history, epoch });
    }
}
