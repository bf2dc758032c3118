"""CorLoc, counts and paired differences."""
