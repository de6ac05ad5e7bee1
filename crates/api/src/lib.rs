//! The wire types of Stockade.
