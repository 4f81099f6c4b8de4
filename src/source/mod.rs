//! Where records come from: Kafka, files, standard input.
