//! A typed client, over plain HTTP.
