import { type ComponentProps, type ReactNode, useEffect, useId, useRef, useState } from 'react'

interface FieldProps {
  label: string
  name: string
  value: string
  onChange: (value: string) => void
  error: string | undefined
  hint?: string
  optional?: boolean
}

type InputProps = Pick<ComponentProps<'input'>, 'type' | 'autoComplete' | 'inputMode' | 'minLength'>

export function TextField({ type = 'text', autoComplete, inputMode, minLength, ...field }: FieldProps & InputProps) {
  const { frame, control } = useField(field)
  return frame(
    <input
      {...control}
      type={type}
      autoComplete={autoComplete}
      inputMode={inputMode}
      minLength={minLength}
      onChange={(event) => {
        field.onChange(event.target.value)
      }}
    />,
  )
}

export function EmailField(field: Omit<FieldProps, 'label'> & { autoComplete: 'username' | 'email' }) {
  return <TextField {...field} label="Email" type="email" />
}

export function TextArea(field: FieldProps) {
  const { frame, control } = useField(field)
  return frame(
    <textarea
      {...control}
      rows={5}
      onChange={(event) => {
        field.onChange(event.target.value)
      }}
    />,
  )
}

type PasswordFieldProps = FieldProps & { autoComplete: 'current-password' | 'new-password'; minLength?: number }

export function PasswordField({ autoComplete, minLength, ...field }: PasswordFieldProps) {
  const { frame, control } = useField(field)
  const [shown, setShown] = useState(false)
  const input = useRef<HTMLInputElement>(null)

  // Browsers may remember what is sent from a visible field as ordinary text.
  useEffect(() => {
    const form = input.current?.form
    const hide = () => {
      setShown(false)
    }
    form?.addEventListener('submit', hide)
    return () => form?.removeEventListener('submit', hide)
  }, [])

  return frame(
    <div className="password">
      <input
        {...control}
        ref={input}
        type={shown ? 'text' : 'password'}
        autoComplete={autoComplete}
        minLength={minLength}
        autoCapitalize="none"
        spellCheck={false}
        onChange={(event) => {
          field.onChange(event.target.value)
        }}
      />
      <button
        type="button"
        className="password-toggle"
        aria-controls={control.id}
        onClick={() => {
          setShown(!shown)
        }}
      >
        {shown ? 'Hide' : 'Show'}
        <span className="visually-hidden"> password</span>
      </button>
    </div>,
  )
}

/** What all fields share: a label, a hint, and an error that is read out together with the field. */
function useField({ label, name, value, error, hint, optional = false }: FieldProps) {
  const id = useId()
  const hintId = `${id}-hint`
  const errorId = `${id}-error`
  const described = [hint !== undefined && hintId, error !== undefined && errorId].filter(Boolean).join(' ')

  return {
    control: {
      id,
      name,
      value,
      'aria-required': !optional,
      'aria-invalid': error !== undefined,
      'aria-describedby': described === '' ? undefined : described,
    },
    frame: (control: ReactNode) => (
      <div className="field">
        <label htmlFor={id}>
          {label}
          {optional && <span className="optional"> (optional)</span>}
        </label>
        {hint !== undefined && (
          <p className="hint" id={hintId}>
            {hint}
          </p>
        )}
        {control}
        {error !== undefined && (
          <p className="error" id={errorId}>
            {error}
          </p>
        )}
      </div>
    ),
  }
}
