"""Every method on the same test images: the stages of a comparison."""
