"""What in the pixels may show who a patient is: text that was burned in, a face. Flags warn; they stop nothing."""
