//! Multiplies an adapter's small matrices into a large one.

use candle_core::Tensor;

use crate::Result;

/// A matrix (out, in · taps) in factored form, f32. The taps are the positions of a convolution's kernel.
#[derive(Debug, Clone)]
pub(super) enum Product {
    LowRank(LowRank),
    /// For embeddings, whose matrices are stored transposed: (`up · down`)ᵀ.
    Transposed(LowRank),
    /// LoHa (Hyeon-Woo et al. 2021, <https://arxiv.org/abs/2108.06098>): the elementwise product of two low-rank
    /// matrices.
    Hadamard(LowRank, LowRank),
    /// LoKr (<https://arxiv.org/abs/2309.14859>): the Kronecker product.
    Kronecker(Factor, Factor),
    /// GLoRA (Chavan et al. 2023, <https://arxiv.org/abs/2306.07967>): W · a + b.
    Generalized {
        a: LowRank,
        b: LowRank,
    },
}

/// A factor of a Kronecker product.
#[derive(Debug, Clone)]
pub(super) enum Factor {
    /// (out, in) or (out, in, height, width).
    Whole(Tensor),
    LowRank(LowRank),
}

/// `up · down`, or with a core between the two (a Tucker decomposition).
#[derive(Debug, Clone)]
pub(super) struct LowRank {
    /// (rank, in) or (rank, in, height, width); with a core (rank, in).
    pub down: Tensor,
    /// (rank of up, rank of down, height, width).
    pub core: Option<Tensor>,
    /// (out, rank).
    pub up: Tensor,
}

/// The largest convolution kernel accepted; the models have 1 and 3.
const LARGEST_KERNEL: usize = 16;

impl LowRank {
    /// Checks that the shapes of the matrices fit each other.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub(super) fn new(down: Tensor, core: Option<Tensor>, up: Tensor) -> std::result::Result<Self, String> {
        let (of_down, of_up) = (down.dims(), up.dims());
        let core_dims = core.as_ref().map(Tensor::dims);
        let ones = |dims: &[usize]| dims.get(2..).is_some_and(|rest| rest.iter().all(|side| *side == 1));
        let ranks_fit = match core_dims {
            None => of_up.get(1) == of_down.first() && of_down.len() >= 2,
            Some([rows, columns, height, width]) => {
                of_up.get(1) == Some(rows)
                    && of_down.first() == Some(columns)
                    && ones(of_down)
                    && (1..=LARGEST_KERNEL).contains(height)
                    && (1..=LARGEST_KERNEL).contains(width)
            }
            Some(_) => false,
        };
        let none_empty = [of_down, of_up, core_dims.unwrap_or(&[])].concat().iter().all(|side| *side > 0);
        if !(ranks_fit && none_empty && ones(of_up)) {
            let between = core_dims.map(|core| format!(" with {core:?} between")).unwrap_or_default();
            return Err(format!(
                "expected matrices (rank, in) and (out, rank), found {of_down:?} and {of_up:?}{between}"
            ));
        }
        Ok(Self { down, core, up })
    }

    /// The rank at the input, which divides alpha.
    pub(super) fn rank(&self) -> usize {
        self.down.dims().first().copied().unwrap_or(1)
    }

    /// (out, in · taps)
    fn shape(&self) -> (usize, usize) {
        let taps = self.core.as_ref().map_or(1, |core| core.dims().iter().skip(2).product());
        (
            self.up.dims().first().copied().unwrap_or(0),
            self.down.dims().iter().skip(1).product::<usize>() * taps,
        )
    }

    /// The map from input to rank in one matrix: (rank, in · taps).
    pub(super) fn whole_down(&self) -> Result<Tensor> {
        let down = self.down.flatten_from(1)?;
        let Some(core) = &self.core else { return Ok(down) };
        // Fold a 1 × 1 convolution into the following kernel: (rank, rank, taps) · (rank, in) to (rank, in, taps).
        let (rows, columns, height, width) = core.dims4()?;
        let taps = height * width;
        let core = core.reshape((rows, columns, taps))?.permute((0, 2, 1))?.reshape(((), columns))?;
        let whole = core.contiguous()?.matmul(&down)?.reshape((rows, taps, down.dim(1)?))?;
        Ok(whole.permute((0, 2, 1))?.contiguous()?.flatten_from(1)?)
    }

    /// (out, in · taps), on the device of `place`.
    fn multiplied(&self, place: &Tensor) -> Result<Tensor> {
        let device = place.device();
        let up = self.up.flatten_from(1)?.to_device(device)?;
        Ok(up.matmul(&self.whole_down()?.to_device(device)?)?)
    }
}

impl Factor {
    fn shape(&self) -> (usize, usize) {
        match self {
            Self::Whole(matrix) => {
                (matrix.dims().first().copied().unwrap_or(0), matrix.dims().iter().skip(1).product())
            }
            Self::LowRank(low_rank) => low_rank.shape(),
        }
    }

    fn multiplied(&self, place: &Tensor) -> Result<Tensor> {
        match self {
            Self::Whole(matrix) => Ok(matrix.flatten_from(1)?.to_device(place.device())?),
            Self::LowRank(low_rank) => low_rank.multiplied(place),
        }
    }
}

impl Product {
    /// (out, in · taps)
    pub(super) fn shape(&self) -> (usize, usize) {
        match self {
            Self::LowRank(one) | Self::Hadamard(one, _) | Self::Generalized { b: one, .. } => one.shape(),
            Self::Transposed(one) => {
                let (columns, rows) = one.shape();
                (rows, columns)
            }
            Self::Kronecker(first, second) => {
                let ((rows, columns), (more_rows, more_columns)) = (first.shape(), second.shape());
                // A size that overflows fits no weight.
                (rows.saturating_mul(more_rows), columns.saturating_mul(more_columns))
            }
        }
    }

    /// Whether it fits a weight of `shape`, given that rows and columns agree.
    pub(super) fn fits(&self, shape: &[usize]) -> bool {
        match self {
            Self::LowRank(_) | Self::Transposed(_) | Self::Kronecker(..) => true,
            Self::Hadamard(one, other) => one.shape() == other.shape(),
            Self::Generalized { a, .. } => shape.get(1).is_some_and(|inputs| a.shape() == (*inputs, *inputs)),
        }
    }

    /// Computes the matrix (out, in · taps) for the weight `old`, which has as many elements.
    pub(super) fn of(&self, old: &Tensor) -> Result<Tensor> {
        match self {
            Self::LowRank(low_rank) => low_rank.multiplied(old),
            Self::Transposed(low_rank) => Ok(low_rank.multiplied(old)?.t()?.contiguous()?),
            Self::Hadamard(one, other) => Ok((one.multiplied(old)? * other.multiplied(old)?)?),
            Self::Kronecker(first, second) => kronecker(&first.multiplied(old)?, &second.multiplied(old)?),
            Self::Generalized { a, b } => {
                // Multiplies over the inputs alone, at every tap.
                let (out, inputs) = (old.dim(0)?, old.dim(1)?);
                let taps_first = old.reshape((out, inputs, ()))?.permute((0, 2, 1))?.contiguous()?;
                let (up, down) = (a.up.flatten_from(1)?, a.whole_down()?);
                let mixed = taps_first.reshape(((), inputs))?.matmul(&up.to_device(old.device())?)?;
                let mixed = mixed.matmul(&down.to_device(old.device())?)?;
                let mixed =
                    mixed.reshape((out, (), inputs))?.permute((0, 2, 1))?.contiguous()?.flatten_from(1)?;
                Ok((mixed + b.multiplied(old)?)?)
            }
        }
    }
}

/// (a, b) and (c, d) to (a · c, b · d)
fn kronecker(first: &Tensor, second: &Tensor) -> Result<Tensor> {
    let ((a, b), (c, d)) = (first.dims2()?, second.dims2()?);
    let product = first.reshape((a, 1, b, 1))?.broadcast_mul(&second.reshape((1, c, 1, d))?)?;
    Ok(product.reshape((a * c, b * d))?)
}
