"""Knowledge distillation: a small model, the student, learns from the outputs of a large one, the teacher."""
