"""What is transcribed: utterances with their audio and reference transcripts, checked and digested."""
