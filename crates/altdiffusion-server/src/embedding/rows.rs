//! Embeds a batch of texts, token ids and images, each of which may fail alone.

use altclip_encoder::{Embedder, RowOutcome, Tokenizer};
use image::DynamicImage;

use super::Input;
use crate::problem::Problem;

/// A vector, and the tokens of its text.
pub(super) type Row = Result<(Vec<f32>, usize), Problem>;

/// A row for each input.
pub(super) fn rows(embedder: &Embedder, inputs: Vec<Input>) -> Vec<Row> {
    let dim = embedder.projection_dim();
    let (mut texts, mut text_places) = (Vec::new(), Vec::new());
    let (mut ids, mut id_places) = (Vec::new(), Vec::new());
    let (mut images, mut rooms, mut image_places) = (Vec::new(), Vec::new(), Vec::new());
    let count = inputs.len();
    for (place, input) in inputs.into_iter().enumerate() {
        match input {
            Input::Text(text) => {
                texts.push(text);
                text_places.push(place);
            }
            Input::WholeText(text) => {
                ids.push(embedder.tokenizer().encode(&text));
                id_places.push(place);
            }
            Input::Ids(row) => {
                ids.push(with_end(embedder.tokenizer(), row));
                id_places.push(place);
            }
            Input::Image(given) => {
                images.push(given.image);
                rooms.push(given.room);
                image_places.push(place);
            }
        }
    }
    let mut rows: Vec<Option<Row>> = Vec::new();
    rows.resize_with(count, || None);
    let token_rows: Vec<_> = embedder.tokenize(&texts).into_iter().chain(ids).collect();
    let lengths: Vec<usize> = token_rows.iter().map(|row| row.as_ref().map_or(0, Vec::len)).collect();
    let mut values = vec![0.0; token_rows.len() * dim];
    let places = text_places.into_iter().chain(id_places);
    match embedder.embed_ids(token_rows, &mut values) {
        Ok(outcomes) => {
            let found = outcomes.into_iter().zip(values.chunks_exact(dim)).zip(lengths);
            for (place, ((outcome, vector), tokens)) in places.zip(found) {
                rows[place] = Some(match outcome {
                    RowOutcome::Failed(error) => Err(error.into()),
                    RowOutcome::Embedded | RowOutcome::Null => Ok((vector.to_vec(), tokens)),
                });
            }
        }
        Err(error) => {
            let problem = Problem::from(error);
            places.for_each(|place| rows[place] = Some(Err(problem.clone())));
        }
    }
    if !images.is_empty() {
        for (place, vector) in image_places.into_iter().zip(image_vectors(embedder, &images)) {
            rows[place] = Some(vector.map(|vector| (vector, 0)));
        }
        drop(rooms);
    }
    rows.into_iter().map(|row| row.unwrap_or_else(|| Err(Problem::failed()))).collect()
}

/// The ids of a text, padded or not, if they end as those of the model's tokenizer do. Clients that tokenize on their
/// own usually do so for OpenAI's models, whose ids mean other words here.
///
/// # Errors
/// If they end with another token.
fn with_end(tokenizer: &Tokenizer, ids: Vec<u32>) -> altclip_encoder::Result<Vec<u32>> {
    let (end, padding) = (tokenizer.eos_id(), tokenizer.pad_id());
    match ids.iter().rfind(|id| **id == end || **id != padding) {
        Some(last) if *last != end => Err(altclip_encoder::Error::Input(format!(
            "token ids that end with {last}, expected {end}, with which this model's tokenizer ends every text; \
             ids for OpenAI's models are others: let the client send texts \
             (LangChain: check_embedding_ctx_length=False)"
        ))),
        _ => Ok(ids),
    }
}

/// A vector for each image. If one cannot be used, it alone fails, since the others may be of other requests.
fn image_vectors(embedder: &Embedder, images: &[DynamicImage]) -> Vec<Result<Vec<f32>, Problem>> {
    let embed = |images: &[DynamicImage]| -> altclip_encoder::Result<Vec<Vec<f32>>> {
        Ok(embedder.embed_images(images)?.to_vec2()?)
    };
    let failed = match embed(images) {
        Ok(vectors) => return vectors.into_iter().map(Ok).collect(),
        Err(error) => error,
    };
    if let [_] = images {
        return vec![Err(Problem::from(failed))];
    }
    let alone = images.iter().map(|image| match embed(std::slice::from_ref(image)) {
        Ok(vectors) => vectors.into_iter().next().ok_or_else(Problem::failed),
        Err(error) => Err(Problem::from(error)),
    });
    alone.collect()
}
