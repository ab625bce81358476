/* The model in both slots, and a window of floats: files in the folder that the assembler runs in. */
    .syntax unified
    .global slot_a, slot_a_end, input
    .section .slot_a, "a"
    .balign 4
slot_a:
    .incbin "model.ecmm"
slot_a_end:
    .section .slot_b, "a"
    .balign 4
    .incbin "model.ecmm"
    .section .input, "a"
    .balign 4
input:
    .incbin "window.f32"
