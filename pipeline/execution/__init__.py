"""The study's stages side by side: on one machine; DVC takes note of each as it ends."""
