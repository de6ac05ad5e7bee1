//! The domain of Stockade, pure.
