//! Shows the progress of downloads on a terminal.

#[cfg(feature = "progress")]
pub(crate) use shown::Bar;
#[cfg(not(feature = "progress"))]
pub(crate) use silent::Bar;

#[cfg(feature = "progress")]
mod shown {
    use indicatif::{ProgressBar, ProgressStyle};

    const TEMPLATE: &str =
        "{msg} [{wide_bar}] {decimal_bytes}/{decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left";

    /// A progress bar on standard error, if that is a terminal.
    pub(crate) struct Bar(ProgressBar);

    impl Bar {
        /// A bar for this many bytes, if known, labelled `what`.
        pub(crate) fn new(size: Option<u64>, what: String) -> Self {
            let style =
                ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = size.map_or_else(ProgressBar::no_length, ProgressBar::new);
            Self(bar.with_style(style).with_message(what))
        }

        pub(crate) fn hidden() -> Self {
            Self(ProgressBar::hidden())
        }

        pub(crate) fn inc(&self, bytes: u64) {
            self.0.inc(bytes);
        }

        pub(crate) fn dec(&self, bytes: u64) {
            self.0.dec(bytes);
        }

        pub(crate) fn finish_and_clear(&self) {
            self.0.finish_and_clear();
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_bar_can_be_drawn() {
            assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
        }
    }
}

#[cfg(not(feature = "progress"))]
mod silent {
    /// A bar that is not shown.
    pub(crate) struct Bar;

    impl Bar {
        pub(crate) fn new(_: Option<u64>, _: String) -> Self {
            Self
        }

        pub(crate) fn hidden() -> Self {
            Self
        }

        pub(crate) fn inc(&self, _: u64) {}

        pub(crate) fn dec(&self, _: u64) {}

        pub(crate) fn finish_and_clear(&self) {}
    }
}
