//! The HTTP server of Stockade.
