"""What every study does with a model, its images and a sparse autoencoder: the numbers behind the pages."""
