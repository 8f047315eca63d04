//! Plans convolutions with cuDNN.

use super::descriptor::{Attribute, BEHAVIOR_NOTE, Descriptor, Kind, NUMERICAL_NOTE, Values};
use super::graph::{Conv2dShape, Id};
use super::library::{Failure, Handle, Library};
use super::target::Target;
use std::ffi::c_int;

/// `CUDNN_HEUR_MODE_A`: probably fastest first.
const BEST_FIRST: c_int = 3;
/// `CUDNN_NUMERICAL_NOTE_TENSOR_CORE`: the only note accepted. Others round inputs or sums to fewer bits, add in a
/// varying order, or transform the factors.
const TENSOR_CORE: c_int = 0;
/// `CUDNN_BEHAVIOR_NOTE_SUPPORTS_CUDA_GRAPH_NATIVE_API`: the only note accepted. One of the others stands for code
/// that must be compiled first, which takes longer than an image.
const KNOWS_GRAPHS: c_int = 3;

/// The number of proposals to consider: cuDNN has dozens per shape, and cannot build some of them.
const PROPOSALS: usize = 64;

/// The most workspace a plan may use.
const MAX_WORKSPACE: i64 = 256 << 20;

/// A convolution ready to run.
pub(crate) struct Plan {
    plan: Descriptor,
    pub(crate) workspace_bytes: usize,
}

impl Plan {
    /// At most this many plans for a shape, fastest first according to cuDNN.
    pub(crate) fn best(
        library: &'static Library,
        target: &Target,
        shape: &Conv2dShape,
        count: usize,
    ) -> Result<Vec<Self>, Failure> {
        let graph = shape.operations(library, target)?;
        let mut attributes = vec![
            (Attribute::HeuristicsOperationGraph, Values::Descriptor(&graph)),
            (Attribute::HeuristicsMode, Values::HeuristicsMode(BEST_FIRST)),
        ];
        attributes.extend(target.of_heuristics());
        let heuristics = Descriptor::new(library, Kind::EngineHeuristics, &attributes)?;
        let configs = heuristics.descriptors(Attribute::HeuristicsResults, Kind::EngineConfig, PROPOSALS)?;
        let plans = configs.iter().filter_map(|config| {
            Self::new(library, target, config).unwrap_or_else(|failure| {
                tracing::trace!(%failure, "cuDNN cannot make a plan that it proposed");
                None
            })
        });
        Ok(plans.take(count).collect())
    }

    fn new(library: &'static Library, target: &Target, config: &Descriptor) -> Result<Option<Self>, Failure> {
        let engines = config.descriptors(Attribute::EngineConfigEngine, Kind::Engine, 1)?;
        let [engine] = &engines[..] else { return Ok(None) };
        let numerical = engine.notes(Attribute::EngineNumericalNotes, NUMERICAL_NOTE)?;
        let behavior = engine.notes(Attribute::EngineBehaviorNotes, BEHAVIOR_NOTE)?;
        if numerical != [TENSOR_CORE] || behavior.iter().any(|&note| note != KNOWS_GRAPHS) {
            return Ok(None);
        }
        let attributes = [(Attribute::PlanEngineConfig, Values::Descriptor(config)), target.of_plan()];
        let plan = Descriptor::new(library, Kind::ExecutionPlan, &attributes)?;
        let workspace = plan.int64(Attribute::PlanWorkspaceSize)?;
        let workspace = usize::try_from(workspace).ok().filter(|_| workspace <= MAX_WORKSPACE);
        Ok(workspace.map(|workspace_bytes| Self { plan, workspace_bytes }))
    }

    /// Queues the convolution on the handle's stream.
    ///
    /// # Safety
    /// The addresses are those of the shape's tensors, and of as much workspace as the plan needs.
    pub(crate) unsafe fn execute(
        &self,
        handle: &Handle,
        tensors: &[(Id, u64)],
        workspace: u64,
    ) -> Result<(), Failure> {
        let library = self.plan.library();
        let ids: Vec<_> = tensors.iter().map(|(id, _)| *id as i64).collect();
        let addresses: Vec<_> = tensors.iter().map(|(_, address)| *address).collect();
        let pack = Descriptor::new(
            library,
            Kind::VariantPack,
            &[
                (Attribute::PackUniqueIds, Values::Int64(&ids)),
                (Attribute::PackAddresses, Values::Addresses(&addresses)),
                (Attribute::PackWorkspace, Values::Addresses(&[workspace])),
            ],
        )?;
        // SAFETY: both are finalised; the memory is promised.
        unsafe { library.execute(handle, self.plan.pointer(), pack.pointer()) }
    }
}
