"""From a mask to a smaller model, kept and used."""
