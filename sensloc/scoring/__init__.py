"""What boxes and heat maps are worth: CorLoc, counts, paired differences, MaxBoxAccV2."""
